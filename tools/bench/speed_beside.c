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

/*
 * --- statistics ---
 *
 * The store makes them of chunks that it has just read into its buffers: the survey in its first pass, which also wants samples, the count just
 * before it encodes the chunk (store/ingest_survey.c, store/ingest_encode.c). So what they add is their time on such a chunk, beside the
 * encoding's on such a chunk; it is put into buffers aside, as reading is neither's. Alone, from memory, they pay for two
 * readings of their own.
 */

/* The chunk, or, unless it is to be taken from afar, as it is just after it was read; inputs stay where they are. */
static struct tpd_chunk read_chunk(struct speed_job *job, const struct speed_chunk *chunk, bool afar)
{
	struct tpd_chunk in = chunk->in;
	struct speed_time start, end;

	if (afar)
		return in;
	start = speed_now();
	in.x = memcpy(job->slot_x, in.x, in.len);
	if (in.p)
		in.p = memcpy(job->slot_w1, in.p, in.ref_len);
	end = speed_now();
	job->aside.cpu += end.cpu - start.cpu;
	job->aside.wall += end.wall - start.wall;
	return in;
}

/* Survey and count of one tensor: stats.h. */
static enum tpd_status tensor_statistics(struct speed_job *job, const struct speed_tensor *tensor, bool afar, struct tpd_err *err)
{
	const bool has_w1 = tensor->p && tensor->p_len == tensor->len;
	const unsigned width = tpd_dtype_width(tensor->dtype);
	struct tpd_stats *stats = NULL;
	struct tpd_sparsity result;
	uint8_t kept[TPD_CHUNK_ELEMENTS / 8];
	enum tpd_status status = tpd_stats_new(tensor->dtype, tensor->len / width, has_w1, &stats, err);

	for (size_t c = 0; !status && c < tensor->chunk_count; c++) {
		const struct tpd_chunk in = read_chunk(job, &job->chunks[tensor->first_chunk + c], afar);
		struct tpd_survey survey;
		size_t samples = 0;

		tpd_survey_chunk(stats, in.x, has_w1 ? in.p : NULL, in.len / width, in.element, &survey, job->slot_sample, &samples);
		status = tpd_stats_add_survey(stats, &survey, job->slot_sample, samples, err);
	}
	if (!status)
		tpd_stats_end_survey(stats);
	for (size_t c = 0; !status && has_w1 && c < tensor->chunk_count; c++) {
		const struct tpd_chunk in = read_chunk(job, &job->chunks[tensor->first_chunk + c], afar);
		struct tpd_count count;

		tpd_count_chunk(stats, in.x, in.p, in.len / width, &count, kept);
		status = tpd_stats_add_count(stats, &count, kept, in.len / width, err);
	}
	if (!status)
		tpd_stats_finish(stats, &result);
	tpd_stats_free(stats);
	return status;
}

static enum tpd_status statistics(struct speed_job *job, bool afar, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t t = 0; !status && t < job->tensor_count; t++)
		if (tpd_dtype_has_stats(job->tensors[t].dtype))
			status = tensor_statistics(job, &job->tensors[t], afar, err);
	return status;
}

static enum tpd_status encode_read(struct speed_job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t c = 0; !status && c < job->chunk_count; c++) {
		struct speed_chunk chunk = job->chunks[c];

		chunk.in = read_chunk(job, &job->chunks[c], false);
		status = speed_encode_unchecked(job->codec, job, &chunk, err);
	}
	return status;
}

/* --- one phase --- */

enum tpd_status speed_beside(struct speed_job *job, enum speed_phase phase, struct tpd_err *err)
{
	uint8_t digest[TPD_SHA256_LEN];

	switch (phase) {
	case SPEED_STATISTICS:
	case SPEED_STATISTICS_AFAR:
		return statistics(job, phase == SPEED_STATISTICS_AFAR, err);
	case SPEED_ENCODE_READ:
		return encode_read(job, err);
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
