/*
 * files.h - a scratch directory and small files for tests of whole layers: honest safetensors checkpoints whose weights move a little
 * from step to step, as training moves them.
 */
#ifndef TPD_TESTS_FILES_H
#define TPD_TESTS_FILES_H

#include "base/tpd.h"

/* A fresh directory, removed with all it holds by scratch_remove(). Returns its path (static storage). */
const char *scratch_make(void);
void scratch_remove(void);
/* Path below the scratch directory; eight results live at once. */
const char *scratch(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void file_write(const char *path, const void *data, size_t len);
/* Whole file in fresh memory; fails the test when it cannot be read. */
uint8_t *file_read(const char *path, size_t *out_len);
bool file_equal(const char *a, const char *b);
void file_flip(const char *path, uint64_t offset); /* invert one byte */
bool file_exists(const char *path);

/* Deterministic numbers. */
uint64_t random_next(uint64_t *state);
double random_normal(uint64_t *state);

/*
 * DIR/model.safetensors with four tensors (F32 300x256, BF16 1000, F32 200000 in one row, I64 9), optimizer.pt as raw floats,
 * trainer_state.json with the step. `seed` decides the weights at step 0 and each step's moves.
 */
void checkpoint_make(const char *dir, uint64_t step, uint64_t seed);

#endif
