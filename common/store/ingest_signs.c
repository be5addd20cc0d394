/*
 * ingest_signs.c - the signs of tensors as bit vectors, and what two of them have to do with each other.
 *
 * An optimizer moves each weight against its exp_avg: the sign of w - w1 and the sign of the state are opposite more often than not,
 * element by element, and only for the tensor that the state belongs to. For a pair of vectors there is a 2 x 2 table, four population
 * counts; its phi coefficient times the square root of the number of elements is a standard normal when they have nothing to do with
 * each other. Signs are used rather than sums of products since a few large elements cannot speak for all, and since counts are the
 * same on every machine.
 *
 *                    w - w1 > 0   < 0
 *     state > 0          a          b        sigma = (b c - a d) sqrt(n) / sqrt((a + b)(c + d)(a + c)(b + d)),  n = a + b + c + d
 *     state < 0          c          d
 *
 * It is a normal only where the table is well filled. Of norms that all shrink, one sign is so rare that a single coincidence would make
 * it large; so the smallest cell must be expected to hold CELL. Then 6 sigma by chance is 2 in 10^7 at the worst (summed exactly, over
 * 64 to 131072 elements and shares of 0.1 to 50 %), and 10^-9 where signs are balanced.
 */
#include "base/tpd.h"

#include "store/ingest_ties.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CELL 16u    /* elements that the smallest cell of the table must be expected to hold */
#define BATCH 256u  /* vectors that are read between two words to the caller */

struct batch {
	struct tpd_ties *ties;
	const struct tpd_signs_wanted *wanted;
};

/* A float in the order of its value, as an integer: both zeros are one. */
static inline __attribute__((always_inline)) int64_t ordered_at(const uint8_t *bytes, const unsigned width, size_t i)
{
	const uint64_t sign = 1ull << (8 * width - 1);
	uint64_t word = 0;
	int64_t magnitude;

	memcpy(&word, bytes + i * width, width); /* of a little-endian file, on a little-endian machine (base/tpd.h) */
	magnitude = (int64_t)(word & (sign - 1));
	return word & sign ? -magnitude : magnitude;
}

/* zeros: what each value is compared with, or NULL: with 0. */
static inline __attribute__((always_inline)) void signs_of(const uint8_t *values, const uint8_t *zeros, const unsigned width, size_t n, uint64_t *positive, uint64_t *negative)
{
	for (size_t start = 0; start < n; start += 64) {
		const size_t end = TPD_MIN(start + 64, n);
		uint64_t above = 0, below = 0;

		for (size_t i = start; i < end; i++) {
			const int64_t value = ordered_at(values, width, i), zero = zeros ? ordered_at(zeros, width, i) : 0;

			above |= (uint64_t)(value > zero) << (i - start);
			below |= (uint64_t)(value < zero) << (i - start);
		}
		positive[start / 64] |= above;
		negative[start / 64] |= below;
	}
}

static enum tpd_status read_one(void *ctx, size_t number, unsigned worker, struct tpd_err *err)
{
	const struct batch *batch = ctx;
	struct tpd_ties *ties = batch->ties;
	const struct tpd_signs_wanted *wanted = &batch->wanted[number];
	const struct tpd_tied *item = &ties->items[wanted->item];
	const struct tpd_segment_work *work = tpd_tied_work(ties, item);
	const struct tpd_segment *seg = tpd_tied_segment(ties, item);
	unsigned width = tpd_dtype_width(item->dtype);
	size_t n = (size_t)TPD_MIN(item->elements, (uint64_t)wanted->words * 64), known = n;
	uint64_t *positive = wanted->bits, *negative = wanted->bits + wanted->words;
	TPD_AUTO_FREE uint8_t *values = malloc(n * width + 1);
	enum tpd_status status;

	if (!values)
		return tpd_fail_nomem(err);
	status = tpd_tied_read(ties, item, 0, n, values, err);
	if (!status && wanted->change) {
		if (!ties->chunks[worker])
			ties->chunks[worker] = malloc(TPD_CHUNK_MAX_BYTES);
		if (!ties->chunks[worker])
			return tpd_fail_nomem(err);
		status = tpd_ingest_read_w1(ties->job, seg, work, 0, worker, ties->chunks[worker], err);
		known = TPD_MIN(n, tpd_segment_chunk_len(seg, 0) / width);
	}
	if (status)
		return status;
	if (width == 4) /* a constant: what is left of the loops has no calls */
		signs_of(values, wanted->change ? ties->chunks[worker] : NULL, 4, known, positive, negative);
	else if (width == 2)
		signs_of(values, wanted->change ? ties->chunks[worker] : NULL, 2, known, positive, negative);
	else
		signs_of(values, wanted->change ? ties->chunks[worker] : NULL, width, known, positive, negative);
	return TPD_OK;
}

enum tpd_status tpd_signs_read(struct tpd_ties *ties, const struct tpd_signs_wanted *wanted, size_t count, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t from = 0; !status && from < count; from += BATCH) {
		struct batch batch = {.ties = ties, .wanted = wanted + from};

		status = tpd_pool_run(ties->job->options->pool, TPD_MIN(count - from, (size_t)BATCH), read_one, &batch, err);
		if (!status)
			status = tpd_ingest_progress(ties->job, 0, err);
	}
	return status;
}

static unsigned ones(uint64_t v)
{
	v -= v >> 1 & 0x5555555555555555u;
	v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
	return (unsigned)(((v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}

double tpd_signs_sigma(const uint64_t *state, const uint64_t *owner, size_t stride, size_t words)
{
	uint64_t a = 0, b = 0, c = 0, d = 0, n;

	for (size_t i = 0; i < words; i++) {
		a += ones(state[i] & owner[i]);
		b += ones(state[i] & owner[stride + i]);
		c += ones(state[stride + i] & owner[i]);
		d += ones(state[stride + i] & owner[stride + i]);
	}
	n = a + b + c + d;
	if (n == 0 || TPD_MIN(a + b, c + d) * TPD_MIN(a + c, b + d) < CELL * n)
		return 0;
	return ((double)b * (double)c - (double)a * (double)d) * sqrt((double)n) /
	       sqrt((double)(a + b) * (double)(c + d) * (double)(a + c) * (double)(b + d));
}
