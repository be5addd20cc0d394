/*
 * ingest_internal.h - what ingest.c, ingest_lineage.c, ingest_match.c, ingest_survey.c and ingest_encode.c share. One tpd_ingest_job lives
 * for one tpd_ingest(); its owner is the calling ("merging") thread, and pool workers touch only the slots they are given.
 */
#ifndef TPD_STORE_INGEST_INTERNAL_H
#define TPD_STORE_INGEST_INTERNAL_H

#include "codec/codec.h"
#include "codec/stats.h"
#include "store/chain.h"
#include "store/hasher.h"
#include "store/ingest.h"
#include "store/part.h"

/* Raw bytes of one batch at most (always at least one chunk): bounds memory whatever the number of threads. */
#define TPD_INGEST_BATCH_BYTES (16u << 20)
/* Slots a thread: enough that the slowest chunk of a batch does not leave the others waiting for long. */
#define TPD_INGEST_SLOTS_PER_THREAD 4u

/* From so many others at most an ingest lets a chunk be put together: what that costs a reader. */
#define TPD_INGEST_SLAB_CHUNKS 16u
/* And so many chunks to be decoded for one, on the average, or half as many again as the chain may have links. */
#define TPD_INGEST_REPLAY_MAX 24u

struct tpd_segment_work {
	struct tpd_plan plan, plan_alone; /* plan_alone only while an anchor is weighed */
	uint64_t sample_bytes, cost, cost_alone; /* of the sample: its size, coded, coded without a reference */
	struct tpd_stats *stats;          /* from the survey's first chunk to the encode pass's last; NULL: none kept */
	bool has_w1;                      /* there is a w1, with a segment of the same name, type and size; with w1_slabs: parts of several */
	uint32_t w1_file, w1_segment;
	struct tpd_slab *w1_slabs;        /* NULL: it is not cut differently there */
	uint32_t w1_slab_count;
	uint8_t *sample_x, *sample_p;     /* while its chunks are surveyed */
	uint8_t *sample_inputs[TPD_INPUT_COUNT]; /* likewise; of those that its terms need */
	struct tpd_predictor predictor;   /* what it may be predicted from; terms 0: nothing */
	unsigned moments;                 /* which of them were found */
	bool serves, is_moment;           /* another one is derived from it; may be predicted from it */
	bool has_twin, takes_twin;        /* a tensor of this checkpoint may be the same; and is cheaper to refer to */
	uint32_t twin_file, twin_segment;
	struct tpd_plan twin_plan;        /* then */
	bool may_be_scaled;               /* `scaled` may be tried on it */
};

struct tpd_file_work {
	struct tpd_entry *entry; /* in the manifest */
	int fd;                  /* borrowed */
	const char *origin;      /* of the checkpoint, for messages; borrowed */
	struct tpd_segment_work *segments; /* entry->segment_count */
	bool *typed;             /* likewise: its format says so */
	bool *part;              /* likewise: of a tensor, its format says */
	uint64_t *marks;         /* XXH3-64 of each chunk as the survey saw it */
};

/* One chunk in flight. Buffers grow to what their chunks need and are used again. */
struct tpd_slot {
	uint32_t segment;
	uint64_t chunk, number;
	uint8_t *x, *p, *w1_buffer, *payload, *kept, *other;
	size_t x_cap, p_cap, w1_cap, payload_cap, kept_cap, other_cap, sample_cap; /* sample_cap counts doubles */
	const uint8_t *w1; /* p, w1_buffer or NULL */
	uint8_t *input[TPD_INPUT_COUNT];
	size_t input_cap[TPD_INPUT_COUNT];
	struct tpd_inputs inputs; /* of these buffers, those that were read */
	double *sample;
	size_t len, p_len, samples;
	struct tpd_survey survey;
	struct tpd_count count;
	struct tpd_part_entry entry;
	uint64_t mark;
};

struct tpd_ingest_job {
	struct tpd_run_lock *lock;
	struct tpd_store *store;
	const struct tpd_source *source;
	const struct tpd_ingest_options *options;
	unsigned threads;
	struct tpd_manifest manifest;
	struct tpd_file_work *files; /* manifest.file_count */
	struct tpd_chain *ref, *w1;  /* NULL: none; may be the same */
	struct tpd_chain *earlier;   /* what ref refers to, for w0; NULL: none, or it is not used */
	uint64_t weight;             /* of the manifest, as far as it is laid out */
	bool anchoring;              /* ref is the keyframe because it would take too much to read what refers to another */
	bool ref_fixed;              /* an interrupted ingest began with it */
	bool mending;                /* this very content is stored, damaged: what is stored now must not refer to it, even from afar */
	bool based;                  /* another run's checkpoint is the reference, or was tried */
	struct tpd_err base_fault;   /* as the result has it */
	bool alone;                  /* no reference and no w1: those that there are cannot be read */
	struct tpd_begin begin;
	struct tpd_chain_worker **chain_workers; /* one a thread */
	struct tpd_codec **codecs;
	struct tpd_slot *slots;
	size_t slot_count;
	struct tpd_hasher *hasher;
	int dir; /* of the unfinished checkpoint; -1 before the encode pass */
	char *where; /* its path, for messages; owned; NULL before the encode pass */
	uint64_t done, total; /* progress */
	uint64_t parts_reused;
	/* the batch in work, for the pool's functions */
	struct tpd_file_work *file;
	bool adopt; /* its chunks are in a finished part already */
};

/* --- ingest.c --- */

/* Does it say that an older checkpoint cannot be read, rather than that this one cannot be stored? */
bool tpd_ingest_lost_reference(enum tpd_status status);
/* With all the places where its bytes may lie as they are. */
enum tpd_status tpd_ingest_open_reference(struct tpd_ingest_job *job, const struct tpd_id *id, struct tpd_chain **out, struct tpd_err *err);

/* The manifest of a version of this step; *out_is_ours is false where it is of another one, forgotten, or damaged: there is none then. */
enum tpd_status tpd_ingest_read_version(struct tpd_ingest_job *job, const struct tpd_version *version, struct tpd_manifest *stored,
					bool *out_is_ours, struct tpd_err *err);
/* Is it sound, so that it can be named as what is stored already? Then *out does. */
bool tpd_ingest_is_there(struct tpd_ingest_job *job, const struct tpd_version *version, struct tpd_ingest_result *out);

/* --- ingest_remnant.c --- */

/*
 * Is it only what is left of a version of this step from the same path, which is sound and has more entries? Then *out names that one,
 * with existed and remnant. Reads nothing of the source.
 */
enum tpd_status tpd_ingest_find_whole(struct tpd_ingest_job *job, const struct tpd_run *run, struct tpd_ingest_result *out,
				      struct tpd_err *err);

/* --- ingest_lineage.c: references to other runs --- */

/* Where the run has nothing to refer to: job->ref from another one, or NULL as it was. After tpd_ingest_parse(). */
enum tpd_status tpd_ingest_lineage(struct tpd_ingest_job *job, struct tpd_err *err);
/*
 * Which link of job->ref an anchor refers to: its keyframe. Where that is of another run, the first checkpoint of this one on the way to
 * it, unless that has taken half of the depth already.
 */
uint32_t tpd_ingest_anchor_link(const struct tpd_ingest_job *job);

/* --- ingest_names.c: where a tensor was in an earlier checkpoint --- */

#define TPD_INGEST_NOWHERE UINT32_MAX

/* The first len bytes of a path with each run of digits whose value is `step` as '*': what it is in any step. The caller's; NULL: no memory. */
char *tpd_ingest_role(const char *path, size_t len, uint64_t step);

/*
 * The directories of a checkpoint's files. One of another checkpoint is the one of the same path, else of the same role: "global_step20/x"
 * and, twenty steps later, "global_step40/x" are one.
 */
struct tpd_ingest_directory;
struct tpd_ingest_directories {
	struct tpd_ingest_directory *items; /* one a file, by path; owned */
	const struct tpd_ingest_directory **by_role;
	uint32_t count;
	uint32_t *of_file; /* numbers, ascending as the paths */
};
/* Also after a failure to be released. *out must be zeros. */
enum tpd_status tpd_ingest_directories_make(const struct tpd_manifest *m, struct tpd_ingest_directories *out, struct tpd_err *err);
void tpd_ingest_directories_release(struct tpd_ingest_directories *directories);
/* Which of them is the directory of that file of another checkpoint? TPD_INGEST_NOWHERE: none. */
enum tpd_status tpd_ingest_directories_find(const struct tpd_ingest_directories *directories, const struct tpd_manifest *own, uint32_t file,
					    uint32_t *out_number, struct tpd_err *err);

#define TPD_INGEST_PREFIXES 4u

struct tpd_ingest_name;
struct tpd_ingest_names {
	const struct tpd_manifest *manifest; /* borrowed, as its names */
	const struct tpd_ingest_directories *directories; /* borrowed */
	struct tpd_ingest_name *items;       /* owned; NULL: there is no checkpoint, nothing is ever found */
	size_t count;
	struct { /* "module.": the first parts that most names have */
		const char *text; /* not ended */
		size_t len, count;
	} prefixes[TPD_INGEST_PREFIXES];
};

enum tpd_status tpd_ingest_names_make(const struct tpd_manifest *m, const struct tpd_ingest_directories *directories,
				      struct tpd_ingest_names *out, struct tpd_err *err);
void tpd_ingest_names_release(struct tpd_ingest_names *names);
/*
 * A tensor of this name and of seg's length (and type, when typed): in file number `file`, else in the first one of that directory, else in
 * the first of all (TPD_INGEST_NOWHERE: none is preferred).
 */
bool tpd_ingest_names_find(const struct tpd_ingest_names *names, const char *name, uint32_t file, uint32_t directory,
			   const struct tpd_segment *seg, bool typed, uint32_t *out_file, uint32_t *out_segment);

/* The same of one that has seg's elements, and another float type. */
bool tpd_ingest_names_find_other(const struct tpd_ingest_names *names, const char *name, uint32_t file, uint32_t directory,
				 const struct tpd_segment *seg, uint32_t *out_file, uint32_t *out_segment);

/*
 * A tensor of seg's elements, of its type or (*out_other) of another float type, whose name differs in its first parts only: what one
 * writer calls model.norm.weight another calls module.model.norm.weight. For checkpoints of another run. last: zeros the first time.
 */
struct tpd_ingest_renaming {
	unsigned way;    /* in which it was found the last time */
	uint32_t misses; /* there is an end to it */
};
bool tpd_ingest_names_find_alike(const struct tpd_ingest_names *names, struct tpd_ingest_renaming *last, const char *name, uint32_t file,
				 uint32_t directory, const struct tpd_segment *seg, bool *out_other, uint32_t *out_file,
				 uint32_t *out_segment);

/* --- ingest_cost.c: what it takes to read through a chain --- */

struct tpd_ingest_cost {
	uint64_t width;   /* chunks of its last link that one of its checkpoint may need */
	/* Chunks of its own checkpoint that one of a derived tensor may need; there is one such step on any way down, copies' (of one) aside. */
	uint64_t derived;
	uint32_t links;
	double replay;  /* chunks that are decoded for one of its checkpoint, on the average */
};
struct tpd_ingest_cost tpd_ingest_cost(const struct tpd_chain *chain); /* NULL: of nothing */
/* From how many chunks of the link below one of this checkpoint is put together at most; 0: none is. */
uint64_t tpd_ingest_width_of(const struct tpd_manifest *m);
/* How much a reader may be asked for, at the limit of links of an archive: TPD_INGEST_REPLAY_MAX. */
double tpd_ingest_replay_max(uint32_t max_depth);
/* The replay of a checkpoint that refers to one of that cost: its own chunks need so many there altogether. */
double tpd_ingest_replay(const struct tpd_ingest_cost *below, uint64_t reads, uint64_t chunks);
/* May a chunk be put together from so many there, of that size? */
bool tpd_ingest_cost_fits(const struct tpd_ingest_cost *below, uint64_t most, uint32_t chunk_bytes);

/* --- ingest_boxes.c: tensors that are cut differently in an earlier checkpoint --- */

struct tpd_ingest_boxes;
/* Of the chain's own checkpoint, whose names it borrows. */
enum tpd_status tpd_ingest_boxes_make(const struct tpd_chain *chain, const struct tpd_ingest_directories *directories,
				      struct tpd_ingest_boxes **out_boxes, struct tpd_err *err);
void tpd_ingest_boxes_free(struct tpd_ingest_boxes *boxes); /* NULL is fine */
const struct tpd_ingest_cost *tpd_ingest_boxes_cost(const struct tpd_ingest_boxes *boxes); /* of the chain */

/* What a tensor has in common with parts of the same one there. */
struct tpd_ingest_cut {
	struct tpd_slab slabs[TPD_SLABS_MAX];
	uint32_t count;    /* 0: nothing, or from too many chunks */
	uint64_t elements; /* that they name */
	struct tpd_slab_cost cost;
};
/* part: it may be a part itself, and its name says of what. directory: where those of its own model are. */
enum tpd_status tpd_ingest_boxes_find(const struct tpd_ingest_boxes *boxes, const struct tpd_segment *seg,
				      const struct tpd_segment_about *about, bool part, uint32_t directory, struct tpd_ingest_cut *out,
				      struct tpd_err *err);

/* --- ingest_match.c: what a file is made of, and what of the reference belongs to it --- */

/* Fill files[].entry's segments from the formats. Needs no reference; first. */
enum tpd_status tpd_ingest_parse(struct tpd_ingest_job *job, struct tpd_err *err);
/* What of this source is in that stored checkpoint as well: the share of equal first chunks of its tensors, by bytes, in percent. */
enum tpd_status tpd_ingest_likeness(struct tpd_ingest_job *job, struct tpd_chain *chain, unsigned *out_percent,
				    struct tpd_err *err);
/* Would it take a reader too much if the checkpoint referred to this one, since tensors are cut differently there? */
enum tpd_status tpd_ingest_is_costly(struct tpd_ingest_job *job, struct tpd_chain *chain, bool *out_costly, struct tpd_err *err);
/* Then, with job->ref and job->w1 chosen: types of what has none, and the references to them. */
enum tpd_status tpd_ingest_match(struct tpd_ingest_job *job, struct tpd_err *err);
/* As if that had not been. */
void tpd_ingest_unmatch(struct tpd_ingest_job *job);

/* Can the manifest hold what weighs so much more (TPD_MANIFEST_WEIGHT_...)? Then it is counted. */
bool tpd_ingest_has_room_for(struct tpd_ingest_job *job, uint64_t weight);

/* --- ingest_ties.c --- */

/* Which tensors are the optimizer's state of which: fills the manifest's ties. After the layout. */
enum tpd_status tpd_ingest_ties(struct tpd_ingest_job *job, struct tpd_err *err);

/* --- ingest_derive.c --- */

/* Then: weights that are the rounding of their masters refer to these instead. */
enum tpd_status tpd_ingest_derive(struct tpd_ingest_job *job, struct tpd_err *err);

/* --- ingest_predict.c --- */

/* Then: which weights may be predicted. */
enum tpd_status tpd_ingest_predict(struct tpd_ingest_job *job, struct tpd_err *err);
/* What the planner is to try for a segment; how many. */
#define TPD_INGEST_TERM_SETS 4u
size_t tpd_ingest_term_sets(const struct tpd_ingest_job *job, const struct tpd_segment_work *work, uint8_t sets[TPD_INGEST_TERM_SETS]);
/* The inputs of a slot that these terms need, into slot->inputs. */
enum tpd_status tpd_ingest_read_inputs(struct tpd_ingest_job *job, struct tpd_slot *slot, unsigned terms, unsigned worker,
				       struct tpd_err *err);
/* When all plans stand: into the manifest. */
enum tpd_status tpd_ingest_name_predictors(struct tpd_ingest_job *job, struct tpd_err *err);

/* --- ingest_repeats.c: tensors that there are more than once --- */

/* Which tensors may be the same as another one. When what they refer to otherwise is known. */
enum tpd_status tpd_ingest_repeats(struct tpd_ingest_job *job, struct tpd_err *err);
/* Segment s of job->file is planned, and has a twin: is that cheaper? In any thread of the pool; own: its sample. */
enum tpd_status tpd_ingest_try_twin(struct tpd_ingest_job *job, uint32_t s, const struct tpd_sample *own, unsigned worker,
				    struct tpd_err *err);
/* When all are planned: those for which it is refer to theirs. */
enum tpd_status tpd_ingest_take_twins(struct tpd_ingest_job *job, struct tpd_err *err);

/* --- ingest_survey.c --- */

enum tpd_status tpd_ingest_survey(struct tpd_ingest_job *job, struct tpd_err *err);
/* The planner's sample of a tensor, from the source; of segments of one length and type it is from the same places. */
enum tpd_status tpd_ingest_read_sample(struct tpd_ingest_job *job, uint32_t file, uint32_t segment, uint8_t *out, struct tpd_err *err);

/* --- ingest_encode.c --- */

enum tpd_status tpd_ingest_encode(struct tpd_ingest_job *job, struct tpd_err *err);

/* --- ingest_batch.c: reading, for both passes --- */

/* For the hasher (arg: a struct tpd_file_work): a chunk of the glue again; TPD_CONFLICT when it is not what the survey saw. */
enum tpd_status tpd_ingest_read_glue(void *arg, uint64_t chunk, uint8_t *out, struct tpd_err *err);
/* Give slots to chunks [number, end) as far as a batch goes; returns how many slots are in use. */
size_t tpd_ingest_batch(struct tpd_ingest_job *job, uint64_t number, uint64_t end);
/* x of a slot. */
enum tpd_status tpd_ingest_read_x(struct tpd_ingest_job *job, struct tpd_slot *slot, struct tpd_err *err);
/* p and w1 of a slot. */
enum tpd_status tpd_ingest_read_refs(struct tpd_ingest_job *job, struct tpd_slot *slot, unsigned worker,
				     struct tpd_err *err);
/* Chunk `chunk` of a segment as it was in w1 (has_w1), which has its length: room for a chunk of its type in out. */
enum tpd_status tpd_ingest_read_w1(struct tpd_ingest_job *job, const struct tpd_segment *seg, const struct tpd_segment_work *work,
				   uint64_t chunk, unsigned worker, uint8_t *out, struct tpd_err *err);
/* What that chunk of a segment, which is not derived, refers to in job->ref: room for a chunk of its type in out. */
enum tpd_status tpd_ingest_read_before(struct tpd_ingest_job *job, uint32_t file, uint32_t segment, uint64_t chunk, unsigned worker,
				       uint8_t *out, size_t *out_len, struct tpd_err *err);
/* A chunk of this checkpoint itself; in the second pass it must be what the first one saw, as everything that is read. */
enum tpd_status tpd_ingest_read_own(struct tpd_ingest_job *job, uint32_t file, uint32_t segment, uint64_t chunk, uint8_t *out,
				    struct tpd_err *err);
/* Fails with TPD_CONFLICT: a source file is not what it was. */
enum tpd_status tpd_ingest_changed(const struct tpd_file_work *file, struct tpd_err *err);
/* Read len bytes of a source file at offset; TPD_CONFLICT when it is shorter. */
enum tpd_status tpd_ingest_pread(const struct tpd_file_work *file, void *buf, size_t len, uint64_t offset,
				 struct tpd_err *err);
enum tpd_status tpd_ingest_progress(struct tpd_ingest_job *job, uint64_t bytes, struct tpd_err *err);

#endif
