/*
 * speed_job.h - the parts of codec_speed: a file, its reference and what it is predicted from, as an ingest would take them.
 *
 *     speed_job.c      reads and parses them, and cuts tensors and chunks
 *     speed_beside.c   what codec_speed shows beside the codec: Zstandard, memcpy, statistics, digests; all threads
 *     speed_ideal.c    what the symbols of a payload would take at their entropy
 */
#ifndef TPD_BENCH_SPEED_JOB_H
#define TPD_BENCH_SPEED_JOB_H

#include "base/tpd.h"
#include "codec/codec.h"
#include "format/format.h"

/* Seconds. */
struct speed_time {
	double cpu, wall;
};

struct speed_file {
	const char *path;
	uint8_t *data, *glue; /* owned; glue: what lies in no tensor */
	uint64_t size, glue_len;
	struct tpd_format_layout layout;
};

struct speed_tensor {
	const char *name;
	const uint8_t *x, *p; /* p NULL: no partner */
	uint64_t len, p_len;
	enum tpd_dtype dtype;
	uint32_t row;
	struct tpd_plan plan;
	struct tpd_inputs inputs; /* of all its elements */
	uint8_t *widened[TPD_INPUT_COUNT]; /* owned: those of them that another type was made F32 for, or NULL */
	uint8_t terms;            /* of weights; 0: nothing to predict them from */
	bool may_be_scaled;       /* it is a moment */
	uint8_t scaled_terms;     /* of exp_avg */
	size_t first_chunk, chunk_count;
	uint64_t out; /* payload bytes */
};

struct speed_chunk {
	uint32_t tensor;
	struct tpd_chunk in;
	struct tpd_inputs inputs;
	uint8_t *payload; /* in job.payloads, room for in.len bytes */
	size_t payload_len;
	enum tpd_encoding encoding;
	double ideal; /* bytes, below 0: unknown; see speed_ideal.c */
};

enum speed_phase {
	SPEED_CHOOSE,
	SPEED_ENCODE,
	SPEED_ENCODE_UNCHECKED,
	SPEED_DECODE,
	SPEED_STATISTICS,
	SPEED_STATISTICS_AFAR,
	SPEED_ENCODE_READ,
	SPEED_CHUNK_DIGESTS,
	SPEED_FILE_DIGEST,
	SPEED_ZSTD_ENCODE,
	SPEED_ZSTD_DECODE,
	SPEED_MEMCPY,
	SPEED_PHASES
};

struct speed_job {
	struct speed_file x, p, first, input[TPD_INPUT_COUNT];
	const char *input_path[TPD_INPUT_COUNT]; /* NULL: not given */
	bool has_p, has_first;
	bool low_rank; /* predictions have what rows share, too, and `context` is taken for more, as with effort = max */
	struct speed_tensor *tensors;
	struct speed_chunk *chunks;
	size_t tensor_count, chunk_count, passes;
	uint8_t *payloads, *decoded, *packed, *copy; /* packed, copy: room for the file */
	size_t packed_cap, packed_len;
	uint8_t *sample_x, *sample_p, *sample_input[TPD_INPUT_COUNT];
	uint8_t *slot_x, *slot_w1; /* a chunk each, as the store reads them */
	double *slot_sample;       /* of its statistics */
	struct tpd_codec *codec;
	struct speed_time aside; /* of the phase that runs: what is not to count */
	/* seconds of each pass, in all and for the chunks of one encoding */
	double *cpu[SPEED_PHASES], *wall[SPEED_PHASES], *by_encoding[TPD_ENCODING_COUNT][SPEED_PHASES];
};

enum tpd_status speed_file_open(const char *path, struct speed_file *out, struct tpd_err *err);
/* x, p, first and inputs are open. */
enum tpd_status speed_job_prepare(struct speed_job *job, struct tpd_err *err);
void speed_job_release(struct speed_job *job);

/* Plan every tensor on its sample, as the store does. */
enum tpd_status speed_choose_all(struct speed_job *job, struct tpd_err *err);
enum tpd_status speed_encode_unchecked(struct tpd_codec *codec, const struct speed_job *job, const struct speed_chunk *chunk,
				       struct tpd_err *err);
/* Into out, and compared by the caller. */
enum tpd_status speed_decode(struct tpd_codec *codec, const struct speed_job *job, const struct speed_chunk *chunk, uint8_t *out,
			     struct tpd_err *err);

/* One phase that is not the codec's, over the whole file. What of its time is not to count is added to job->aside. */
enum tpd_status speed_beside(struct speed_job *job, enum speed_phase phase, struct tpd_err *err);

/* Wall seconds of the bare encoding and of decoding, with one thread and with `threads`: one pass each. */
struct speed_threads {
	double one[2], all[2];
};
enum tpd_status speed_on_threads(const struct speed_job *job, unsigned threads, struct speed_threads *out, struct tpd_err *err);

/* Sets every chunk's `ideal`. */
enum tpd_status speed_ideals(struct speed_job *job, struct tpd_err *err);

double speed_seconds(bool cpu);
struct speed_time speed_now(void);

#endif
