/*
 * format.h - where the tensors lie in a file.
 *
 * tpd_format_parse() looks at a file through a read callback and says which
 * byte ranges of it are tensors (storages), with name, type and shape where
 * the format tells.  All other bytes of the file are "glue": headers, padding,
 * pickles.  Nothing here is ever needed to restore: a parse only decides how
 * bytes are grouped, so a parser that doubts anything declares the whole file
 * opaque (kind TPD_FORMAT_OPAQUE, no segments) and says why in `reason`.
 * Files are hostile input: no read past `size`, no allocation above the named
 * limits, no recursion that the input controls.
 */
#ifndef TPD_FORMAT_FORMAT_H
#define TPD_FORMAT_FORMAT_H

#include "base/dtype.h"
#include "base/tpd.h"

#define TPD_FORMAT_MAX_DIMS 8
#define TPD_FORMAT_MAX_HEADER (16u << 20) /* safetensors header that is still parsed; more is opaque */
#define TPD_FORMAT_MAX_GLUE (16u << 20)   /* glue of a file with segments; more makes it opaque, but for a .distcp: each item has 1.3 KB */
#define TPD_FORMAT_MAX_SEGMENTS (1u << 20)
#define TPD_FORMAT_MAX_NAME 4096          /* bytes of a tensor's name; a longer one makes the file opaque */
#define TPD_FORMAT_MIN_SEGMENT 64         /* bytes; smaller storages stay in the glue */

/* On disk (manifest); assigned once. */
enum tpd_format_kind {
	TPD_FORMAT_OPAQUE = 0,
	TPD_FORMAT_SAFETENSORS = 1,
	TPD_FORMAT_TORCH_ZIP = 2,
	TPD_FORMAT_TORCH_DISTCP = 3, /* __R_N.distcp of a distributed checkpoint */
	TPD_FORMAT_TORCH_LEGACY = 4, /* torch.save() before PyTorch 1.6 */
	TPD_FORMAT_NPZ = 5,
	TPD_FORMAT_NPY = 6,
	TPD_FORMAT_GGUF = 7,
	TPD_FORMAT_ONNX = 8,         /* the model itself */
	TPD_FORMAT_ONNX_DATA = 9,    /* external data of one */
	TPD_FORMAT_KINDS             /* not on disk: one more than the last */
};

const char *tpd_format_kind_name(enum tpd_format_kind kind); /* "opaque", "safetensors", "torch-zip", ...; "?" */

struct tpd_format_segment {
	char *name;                /* owned; unique in the file; not empty; UTF-8 */
	uint64_t offset, length;   /* bytes in the file; length >= TPD_FORMAT_MIN_SEGMENT */
	enum tpd_dtype dtype;      /* meaningful when typed */
	bool typed;                /* false: the format does not say; find it by trying */
	unsigned ndim;             /* 0: shape unknown, or a scalar */
	uint64_t dims[TPD_FORMAT_MAX_DIMS]; /* as they lie in the file */
	bool part;                 /* its file says where it begins in a tensor, be it at the beginning: it may not be all of it */
	bool transposed;           /* which is in another order than the tensor's own */
};

struct tpd_format_layout {
	enum tpd_format_kind kind;
	struct tpd_format_segment *segments; /* by ascending offset, disjoint; owned */
	size_t count;
	char reason[160];          /* why it is opaque although it looked like more; else "" */
	bool cut;                  /* and the rest of it is missing: the header speaks of more than there is (told of GGUF only) */
};

/*
 * Read exactly len bytes at offset; the caller of the callback guarantees offset + len <= size.
 * A failure (I/O) ends the parse with that status.
 */
typedef enum tpd_status (*tpd_format_read_fn)(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err);

/* One for a file that is open: ctx points to its descriptor, an int. */
enum tpd_status tpd_format_read_fd(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err);

/*
 * Does the file end where its format says: has a zip its end record, safetensors, GGUF and HDF5 the length of their header, and says HDF5
 * that nobody has it open for writing? name: its ending tells safetensors and HDF5. Others: true, if they are not empty.
 */
bool tpd_format_is_whole(int fd, const char *name, uint64_t size);

/*
 * What some files say of others: the .metadata of a distributed checkpoint of its .distcp files, an ONNX model of its
 * external data.  Where a checkpoint has several files:
 *
 *     hints = tpd_format_hints_new(&err);
 *     for each file:  tpd_format_hints_read(hints, path, size, read, ctx, &err);
 *     for each file:  tpd_format_parse(path, size, read, ctx, hints, &layout, &err);
 *     tpd_format_hints_free(hints);
 *
 * Paths are relative to one directory, the same in both rounds.  What is no such companion, by its name, is not read;
 * one that is doubted says nothing.
 */
struct tpd_format_hints;
struct tpd_format_hints *tpd_format_hints_new(struct tpd_err *err); /* NULL: TPD_NOMEM */
void tpd_format_hints_free(struct tpd_format_hints *hints);         /* NULL is fine */
/* Fails only with what the callback failed with, or TPD_NOMEM. */
enum tpd_status tpd_format_hints_read(struct tpd_format_hints *hints, const char *path, uint64_t size,
				      tpd_format_read_fn read, void *ctx, struct tpd_err *err);

/*
 * path: used only for its ending, and to find what the hints, which may be NULL, say of it.  Fails only with what the
 * callback failed with, or TPD_NOMEM.  Release the layout in every case in which TPD_OK was returned.
 */
enum tpd_status tpd_format_parse(const char *path, uint64_t size, tpd_format_read_fn read, void *ctx,
				 const struct tpd_format_hints *hints, struct tpd_format_layout *out_layout,
				 struct tpd_err *err);
void tpd_format_layout_release(struct tpd_format_layout *layout);

/* The parsers themselves, tried in order by the file's first bytes. Same contract. */
enum tpd_status tpd_format_parse_safetensors(uint64_t size, tpd_format_read_fn read, void *ctx,
					     struct tpd_format_layout *out_layout, struct tpd_err *err);
enum tpd_status tpd_format_parse_zip(uint64_t size, tpd_format_read_fn read, void *ctx,
				     struct tpd_format_layout *out_layout, struct tpd_err *err); /* torch's, or npz */
enum tpd_status tpd_format_parse_onnx(uint64_t size, tpd_format_read_fn read, void *ctx,
				      struct tpd_format_layout *out_layout, struct tpd_err *err);
enum tpd_status tpd_format_parse_gguf(uint64_t size, tpd_format_read_fn read, void *ctx,
				      struct tpd_format_layout *out_layout, struct tpd_err *err);
enum tpd_status tpd_format_parse_npy(uint64_t size, tpd_format_read_fn read, void *ctx,
				     struct tpd_format_layout *out_layout, struct tpd_err *err);
enum tpd_status tpd_format_parse_torch_legacy(uint64_t size, tpd_format_read_fn read, void *ctx,
					      struct tpd_format_layout *out_layout, struct tpd_err *err);

/*
 * Which step a file by torch.save() says that it is of: a whole number under "global_step", "step" or "iteration" at the top of what
 * was saved. *out_found false: none, or no such file. Fails with what the callback failed with, or TPD_NOMEM.
 */
enum tpd_status tpd_format_torch_step(uint64_t size, tpd_format_read_fn read, void *ctx, bool *out_found, uint64_t *out_step,
				      struct tpd_err *err);

/*
 * The scores under which the ModelCheckpoint callbacks of Lightning saved a file of this name (without directories):
 * of each, its "monitor" and the value that its "best_k_models" has for the name. fn gets the monitor, which has no
 * final zero and may be anything, and the value, which is finite. Not "current_score": in a file that another callback
 * wrote, or save_last, it is that of an earlier step. Fails as fn does, with what the read callback failed with, or
 * TPD_NOMEM.
 */
typedef enum tpd_status (*tpd_format_score_fn)(void *arg, const char *monitor, size_t length, double value, struct tpd_err *err);
enum tpd_status tpd_format_torch_scores(const char *name, uint64_t size, tpd_format_read_fn read, void *ctx,
					tpd_format_score_fn fn, void *arg, struct tpd_err *err);

/*
 * The codec's row length for a shape (codec/SPEC.md): the last dimension, outer ones merged until it has at
 * least 64 elements, split evenly above 8192; 1024 where there is no shape.  In [1, 8192].
 */
uint32_t tpd_format_row(unsigned ndim, const uint64_t *dims, uint64_t elements);

#endif
