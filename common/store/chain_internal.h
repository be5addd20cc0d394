/*
 * chain_internal.h - what chain.c, chain_replay.c (chunks), chain_links.c (manifests) and chain_files.c (parts and originals)
 * share.
 */
#ifndef TPD_STORE_CHAIN_INTERNAL_H
#define TPD_STORE_CHAIN_INTERNAL_H

#include <pthread.h>

#include "store/chain.h"
#include "store/chain_cache.h"
#include "store/part.h"

/* Where bytes of link 0 may lie as they are. */
enum tpd_chain_source { TPD_CHAIN_HELD, TPD_CHAIN_ORIGINAL, TPD_CHAIN_COPY, TPD_CHAIN_SOURCES };

/* A file of a link whose segments are those of the link above, but for these. */
struct tpd_chain_shared {
	const struct tpd_segment *segments; /* of a link above; NULL: the file has its own */
	struct tpd_segment glue;
	uint8_t *has_ref; /* owned; a bit a segment: it refers to the one of the same number in that file below */
};

#define TPD_CHAIN_NONE UINT32_MAX

struct tpd_chain_link {
	uint32_t below, earlier; /* the links that it refers to: as reference, and for w0; TPD_CHAIN_NONE */
	uint32_t depth;          /* the longest way down from it */
	struct tpd_manifest manifest; /* segments of shared files are NULL */
	struct tpd_chain_shared *shared; /* one a file; NULL for link 0 */
	uint32_t generation; /* of its object: the one that the manifest was read from */
};

/* A part, or a file of a source, that is open. */
struct tpd_chain_file {
	uint32_t link, file, number;
	int source;             /* TPD_CHAIN_SOURCES: a part */
	struct tpd_part *part;
	int fd;                 /* of a source; -1 */
	unsigned users;         /* it is closed only when there are none */
	uint64_t used;          /* when it was last taken, counted in takings */
};

struct tpd_chain {
	struct tpd_store *store;
	struct tpd_chain_link *links;
	uint32_t count;
	char *sources[TPD_CHAIN_SOURCES]; /* directories of link 0, or NULL */
	int *held;                        /* descriptors of its files, borrowed; the array is owned; or NULL */
	bool *lost[TPD_CHAIN_SOURCES];    /* of each file of link 0: not to be tried again; NULL until one is */
	struct tpd_chain_cache *cache;
	pthread_mutex_t lock;             /* guards all below, and lost */
	struct tpd_chain_file **open;
	uint32_t open_count, open_cap;
	uint64_t takings;
};

/* --- chain.c --- */

/* Put run, step, file and chunk before the text of err. */
enum tpd_status tpd_chain_name_fault(const struct tpd_chain *chain, uint32_t link, uint32_t file, uint64_t number,
				     struct tpd_err *err);
enum tpd_status tpd_chain_read_entry(struct tpd_chain *chain, uint32_t link, uint32_t file, uint64_t number,
				     struct tpd_part_entry *out, struct tpd_err *err);

/* --- chain_links.c --- */

/* As if each link had its own; where it lies in the file holds for link 0 only. */
struct tpd_segment tpd_chain_segment(const struct tpd_chain *chain, uint32_t link, uint32_t file, uint32_t segment);

/* NULL: it has none. */
const struct tpd_predictor *tpd_chain_predictor(const struct tpd_chain *chain, uint32_t link, uint32_t file, uint32_t segment);

/* --- chain_files.c --- */

/* The part that holds chunk `number` of a file, checked against the manifest. It stays open until it is given back. */
enum tpd_status tpd_chain_take_part(struct tpd_chain *chain, uint32_t link, uint32_t file, uint64_t number,
				    struct tpd_chain_file **out_file, struct tpd_err *err);
/* A file of link 0 in one of its sources; NULL: not there, or of another size. */
struct tpd_chain_file *tpd_chain_take_raw(struct tpd_chain *chain, enum tpd_chain_source source, uint32_t file);
/* NULL is fine. */
void tpd_chain_give(struct tpd_chain *chain, struct tpd_chain_file *file);
void tpd_chain_close_files(struct tpd_chain *chain);

#endif
