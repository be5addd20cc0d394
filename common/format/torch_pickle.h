/*
 * torch_pickle.h - the storages that a pickle by torch.save() speaks of: name, element type, shape. Private to
 * format/.
 *
 * Names are the way to the tensor in what was saved, parts joined by dots: "model.layers.0.weight",
 * "state.3.exp_avg", "optimizer_states.0.state.3.exp_avg". Of several tensors in one storage the first gives the name
 * (tied weights), and one that is the whole storage in its memory order gives the shape.
 *
 * Bounds: those of pickle.h; each container is gone into once, at most 100 deep; names together take
 * TPD_TORCH_NAMES_MAX steps and bytes, and storages after that have none. So at most six steps a byte of pickle, and
 * TPD_TORCH_NAMES_MAX (steps counts them); 60 MB beside those of pickle.h.
 */
#ifndef TPD_FORMAT_TORCH_PICKLE_H
#define TPD_FORMAT_TORCH_PICKLE_H

#include "base/dtype.h"
#include "base/tpd.h"
#include "format/format.h"
#include "format/pickle.h"

#define TPD_TORCH_NAMES_MAX (16u << 20)  /* 250,000 names of 60 bytes */
#define TPD_TORCH_TENSORS_MAX (1u << 17) /* honest pickles run out of opcodes before; others are not described */

struct tpd_torch_storage {
	const char *key; /* "17", of the member data/17; borrowed from the pickle; no final zero */
	uint32_t key_length;
	char *name; /* owned; "" when there is none that is fit */
	enum tpd_dtype dtype;
	bool typed;     /* false: a type that we do not have */
	bool sized;     /* false: a type of unknown width */
	uint64_t numel, bytes; /* elements as they are stored; their bytes, meaningful when sized */
	unsigned ndim;  /* 0: no tensor is the whole of it */
	uint64_t dims[TPD_FORMAT_MAX_DIMS]; /* in the order of the memory */
	bool transposed; /* which is not the tensor's */
};

struct tpd_torch_storages {
	struct tpd_torch_storage *items; /* sorted by key, each once; owned */
	size_t count;
	size_t length;     /* bytes of the pickle */
	uint64_t steps;    /* that it took */
	const char *doubt; /* NULL, or why the pickle is not to be trusted; then there are none */
};

/* Fails with TPD_NOMEM only. bytes must outlive the result. Release it after TPD_OK. */
enum tpd_status tpd_torch_pickle(const void *bytes, size_t len, struct tpd_torch_storages *out_storages,
				 struct tpd_err *err);
void tpd_torch_storages_release(struct tpd_torch_storages *storages);
/* NULL: the pickle does not speak of it. */
const struct tpd_torch_storage *tpd_torch_find(const struct tpd_torch_storages *storages, const char *key,
					       size_t length);

/* One number: a plain one, or the element of a tensor without dimensions. */
struct tpd_torch_scalar {
	bool plain;          /* value is all; else it lies in a storage: */
	double value;
	const char *key;     /* borrowed from the pickle; no final zero */
	uint32_t key_length;
	enum tpd_dtype dtype;
	uint64_t offset;     /* bytes */
};
/* false: it is none, or of a type that we do not have. */
bool tpd_torch_scalar(const struct tpd_pickle *pickle, uint32_t node, struct tpd_torch_scalar *out);

/* The type that torch calls "bfloat16", or that "BFloat16Storage" has. False: none that we have. */
bool tpd_torch_dtype(const char *name, size_t length, enum tpd_dtype *out_dtype);

#endif
