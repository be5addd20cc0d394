/*
 * pickle.h - what a pickle says, read as symbols: nothing is imported, called or run. Private to format/.
 *
 *     struct tpd_pickle pickle;
 *     tpd_pickle_read(bytes, len, TPD_PICKLE_MAX_OPS, &pickle, &err)
 *     ... pickle.doubt is NULL, or why it is not to be trusted; else walk from pickle.root, nodes[], cells[] ...
 *     tpd_pickle_release(&pickle);
 *
 * The result is a graph of nodes, named by their number. A name that is imported is a GLOBAL, a call is a CALL with
 * what is called, its arguments, and what was put into it afterwards (BUILD's state; items of an OrderedDict or a
 * subclass of list). A value that is remembered and used again is the same node, so the graph may have many paths to
 * one node, and cycles: a walk must bound itself (tpd_pickle.cells is as many steps as it takes to see everything
 * once).
 *
 * Bounds: TPD_PICKLE_MAX_BYTES of pickle, and as many opcodes and values as the caller allows. Each opcode costs a
 * constant amount of work and memory, but for those that take many items from the stack, which cost two steps an item
 * that was put there by an opcode of its own. So at most three steps a byte of pickle (tpd_pickle.steps counts them),
 * and for 2^20 opcodes at most 52 MB: 32 of nodes, 8 of cells, 8 of memo, 4 of stack (and 16 more for the moment in
 * which the nodes are moved).
 *
 * Source: CPython's Lib/pickletools.py, protocols 2 to 5 without text opcodes, extension registry and out-of-band
 * buffers.
 */
#ifndef TPD_FORMAT_PICKLE_H
#define TPD_FORMAT_PICKLE_H

#include "base/tpd.h"

#define TPD_PICKLE_MAX_BYTES (64u << 20)
#define TPD_PICKLE_MAX_OPS (1u << 20)       /* torch.save() writes about 31 a storage: 33,000 storages */
#define TPD_PICKLE_MAX_OPS_LARGE (1u << 23) /* .metadata has about 85 a chunk: 98,000 chunks */

enum tpd_pickle_kind {
	TPD_PICKLE_NONE = 0,
	TPD_PICKLE_BOOL,   /* integer */
	TPD_PICKLE_INT,    /* integer; out of range of int64: TPD_PICKLE_OTHER */
	TPD_PICKLE_FLOAT,  /* real */
	TPD_PICKLE_OTHER,  /* a large integer */
	TPD_PICKLE_STRING, /* text, length: UTF-8 as it stands in the pickle, not checked */
	TPD_PICKLE_BYTES,  /* text, length */
	TPD_PICKLE_TUPLE,  /* items */
	TPD_PICKLE_LIST,   /* items */
	TPD_PICKLE_SET,    /* items */
	TPD_PICKLE_DICT,   /* items: key, value, key, value ... */
	TPD_PICKLE_GLOBAL, /* module, name: strings */
	TPD_PICKLE_CALL,   /* callee, arguments, state (TPD_PICKLE_NOTHING: none); items: added afterwards */
	TPD_PICKLE_PERSISTENT, /* id */
	TPD_PICKLE_MARK    /* never in the result */
};

#define TPD_PICKLE_NOTHING UINT32_MAX /* no node, no cell */

struct tpd_pickle_node {
	uint8_t kind; /* enum tpd_pickle_kind */
	bool pairs;   /* CALL: its items are key, value, ... */
	uint32_t first, last; /* cells of the items */
	union {
		int64_t integer;
		double real;
		struct {
			const char *at; /* borrowed from the pickle */
			uint32_t length;
		} text;
		struct {
			uint32_t module, name;
		} global;
		struct {
			uint32_t callee, arguments, state;
		} call;
		uint32_t id;
	} u;
};

struct tpd_pickle_cell {
	uint32_t node, next;
};

struct tpd_pickle {
	struct tpd_pickle_node *nodes; /* owned */
	struct tpd_pickle_cell *cells; /* owned */
	uint32_t node_count, cell_count;
	uint32_t root;     /* what the pickle stands for */
	size_t length;     /* bytes up to and with its STOP: another may follow */
	uint64_t steps;    /* that reading took: opcodes, and items moved */
	const char *doubt; /* NULL, or why not; then there are no nodes */
};

/*
 * max_ops: opcodes, and values, that it may have at most; below 2^31. Fails with TPD_NOMEM only. bytes must outlive the
 * pickle. Release it after TPD_OK, also when there is a doubt.
 */
enum tpd_status tpd_pickle_read(const void *bytes, size_t len, uint32_t max_ops, struct tpd_pickle *out_pickle,
				struct tpd_err *err);
void tpd_pickle_release(struct tpd_pickle *pickle);

/* The n-th item of a tuple, list, or other with items; TPD_PICKLE_NOTHING when there are fewer. For small n. */
uint32_t tpd_pickle_item(const struct tpd_pickle *pickle, uint32_t node, unsigned n);
/* Is it this string, or the global MODULE.NAME? False for TPD_PICKLE_NOTHING. */
bool tpd_pickle_is_string(const struct tpd_pickle *pickle, uint32_t node, const char *text);
bool tpd_pickle_is_global(const struct tpd_pickle *pickle, uint32_t node, const char *module, const char *name);
/* Is it an integer >= 0? */
bool tpd_pickle_u64(const struct tpd_pickle *pickle, uint32_t node, uint64_t *out_value);
/* The kind; TPD_PICKLE_NONE for TPD_PICKLE_NOTHING. */
enum tpd_pickle_kind tpd_pickle_kind_of(const struct tpd_pickle *pickle, uint32_t node);
/* The value of a string key in a DICT (or CALL with pairs), by a linear search; TPD_PICKLE_NOTHING. */
uint32_t tpd_pickle_lookup(const struct tpd_pickle *pickle, uint32_t dict, const char *key);
/*
 * A field of an object: the value of this key in the dict that is the state of a CALL; TPD_PICKLE_NOTHING. Looks at
 * no more than TPD_PICKLE_MAX_FIELDS keys: one state may be that of a million objects.
 */
#define TPD_PICKLE_MAX_FIELDS 32
uint32_t tpd_pickle_field(const struct tpd_pickle *pickle, uint32_t object, const char *key);
/*
 * The numbers of a tuple of integers >= 0 (or of a call with one as its only argument, as torch.Size is) into out,
 * which has room for max. false: something else, or more of them.
 */
bool tpd_pickle_sizes(const struct tpd_pickle *pickle, uint32_t node, unsigned max, unsigned *out_count, uint64_t *out);

#endif
