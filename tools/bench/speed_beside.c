/*
 * speed_beside.c - what codec_speed measures beside the codec, on the same bytes: Zstandard at level 3 and memcpy, to compare with; the
 * store's statistics and digests, whose cost is not the codec's; and the codec on several threads.
 *
 * Buffers are warm, contexts are kept, so that neither side pays for pages or allocation.
 */
#include "base/tpd.h"

#include "tools/bench/speed_job.h"

#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/pool.h"
#include "codec/internal.h"
#include "codec/stats.h"

#define ZSTD_LEVEL 3

/* --- statistics --- */

/*
 * Statistics share the passes over the data: a chunk is in the cache when they are taken of it, since the store has just read it, and encodes
 * it then. So it is put there first, and what that takes is not theirs.
 */
struct clock {
	double cpu, wall;
};

static void start(struct clock *clock)
{
	clock->cpu -= speed_seconds(true);
	clock->wall -= speed_seconds(false);
}

static void stop(struct clock *clock)
{
	clock->cpu += speed_seconds(true);
	clock->wall += speed_seconds(false);
}

/* Returns how many elements are in the buffers; *out_w1 NULL: no w1. */
static size_t read_chunk(struct speed_job *job, const struct speed_tensor *tensor, size_t c, bool has_w1, const uint8_t **out_w1)
{
	const struct tpd_chunk *in = &job->chunks[tensor->first_chunk + c].in;

	memcpy(job->sample_x, in->x, in->len);
	if (has_w1)
		memcpy(job->sample_p, in->p, in->len);
	*out_w1 = has_w1 ? job->sample_p : NULL;
	return in->len / tpd_dtype_width(tensor->dtype);
}

/* Survey and count of one tensor: stats.h. */
static enum tpd_status tensor_statistics(struct speed_job *job, const struct speed_tensor *tensor, double *sample, struct clock *clock,
					  struct tpd_err *err)
{
	const unsigned width = tpd_dtype_width(tensor->dtype);
	const bool has_w1 = tensor->p && tensor->p_len == tensor->len;
	struct tpd_stats *stats = NULL;
	struct tpd_sparsity result;
	uint8_t kept[TPD_CHUNK_ELEMENTS / 8];
	const uint8_t *w1;
	enum tpd_status status;

	start(clock);
	status = tpd_stats_new(tensor->dtype, tensor->len / width, has_w1, &stats, err);
	stop(clock);
	for (size_t c = 0; !status && c < tensor->chunk_count; c++) {
		size_t n = read_chunk(job, tensor, c, has_w1, &w1), samples = 0;
		struct tpd_survey survey;

		start(clock);
		tpd_survey_chunk(stats, job->sample_x, w1, n, c * TPD_CHUNK_ELEMENTS, &survey, sample, &samples);
		status = tpd_stats_add_survey(stats, &survey, sample, samples, err);
		stop(clock);
	}
	start(clock);
	if (!status)
		tpd_stats_end_survey(stats);
	stop(clock);
	for (size_t c = 0; !status && has_w1 && c < tensor->chunk_count; c++) {
		size_t n = read_chunk(job, tensor, c, has_w1, &w1);
		struct tpd_count count;

		start(clock);
		tpd_count_chunk(stats, job->sample_x, w1, n, &count, kept);
		status = tpd_stats_add_count(stats, &count, kept, n, err);
		stop(clock);
	}
	start(clock);
	if (!status)
		tpd_stats_finish(stats, &result);
	tpd_stats_free(stats);
	stop(clock);
	return status;
}

enum tpd_status speed_statistics(struct speed_job *job, double *out_cpu, double *out_wall, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;
	double *sample = malloc((TPD_CHUNK_ELEMENTS + TPD_STATS_SLACK) * sizeof(*sample));
	struct clock clock = {0, 0};

	if (!sample)
		return tpd_fail_nomem(err);
	for (size_t t = 0; !status && t < job->tensor_count; t++)
		if (tpd_dtype_has_stats(job->tensors[t].dtype))
			status = tensor_statistics(job, &job->tensors[t], sample, &clock, err);
	free(sample);
	*out_cpu = clock.cpu;
	*out_wall = clock.wall;
	return status;
}

/* --- one phase --- */

enum tpd_status speed_beside(struct speed_job *job, enum speed_phase phase, struct tpd_err *err)
{
	uint8_t digest[TPD_SHA256_LEN];

	switch (phase) {
	case SPEED_CHUNK_DIGESTS:
		for (size_t c = 0; c < job->chunk_count; c++) {
			tpd_xxh128(job->chunks[c].payload, job->chunks[c].payload_len, digest);
			tpd_xxh128(job->chunks[c].in.x, job->chunks[c].in.len, digest);
		}
		return TPD_OK;
	case SPEED_FILE_DIGEST:
		tpd_sha256_once(job->x.data, job->x.size, digest);
		return TPD_OK;
	case SPEED_ZSTD_ENCODE:
		return tpd_zstd_encode(job->codec->zstd, ZSTD_LEVEL, NULL, 0, job->x.data, job->x.size, job->packed, job->packed_cap,
				       &job->packed_len, err);
	case SPEED_ZSTD_DECODE:
		if (job->packed_len == SIZE_MAX)
			return tpd_fail(err, TPD_LIMIT, "Zstandard has no room");
		return tpd_zstd_decode(job->codec->zstd, NULL, 0, job->packed, job->packed_len, job->copy, job->x.size, err);
	default:
		memcpy(job->copy, job->x.data, job->x.size);
		return TPD_OK;
	}
}

/* --- several threads --- */

struct worker {
	struct tpd_codec *codec;
	uint8_t *decoded;
};

struct crew {
	const struct speed_job *job;
	struct worker *workers;
	bool decoding;
};

static enum tpd_status work(void *ctx, size_t item, unsigned worker, struct tpd_err *err)
{
	const struct crew *crew = ctx;
	const struct speed_chunk *chunk = &crew->job->chunks[item];
	struct worker *own = &crew->workers[worker];

	if (!crew->decoding)
		return speed_encode_unchecked(own->codec, crew->job, chunk, err);
	return speed_decode(own->codec, crew->job, chunk, own->decoded, err);
}

static enum tpd_status run_crew(const struct speed_job *job, unsigned threads, double out[2], struct tpd_err *err)
{
	struct worker workers[TPD_POOL_MAX] = {0};
	struct crew crew = {.job = job, .workers = workers};
	struct tpd_pool *pool = NULL;
	enum tpd_status status = tpd_pool_new(threads, &pool, err);

	for (unsigned i = 0; !status && i < threads; i++) {
		workers[i].decoded = malloc(TPD_CHUNK_MAX_BYTES);
		status = workers[i].decoded ? tpd_codec_new(&workers[i].codec, err) : tpd_fail_nomem(err);
	}
	/* Once for the scratch memory of each, then for the clock. */
	for (unsigned turn = 0; !status && turn < 4; turn++) {
		double start = speed_seconds(false);

		crew.decoding = turn % 2;
		status = tpd_pool_run(pool, job->chunk_count, work, &crew, err);
		out[turn % 2] = speed_seconds(false) - start;
	}
	for (unsigned i = 0; i < threads; i++) {
		tpd_codec_free(workers[i].codec);
		free(workers[i].decoded);
	}
	tpd_pool_free(pool);
	return status;
}

enum tpd_status speed_on_threads(const struct speed_job *job, unsigned threads, struct speed_threads *out, struct tpd_err *err)
{
	enum tpd_status status = run_crew(job, 1, out->one, err);

	return status ? status : run_crew(job, threads, out->all, err);
}
