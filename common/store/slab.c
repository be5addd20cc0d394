/*
 * slab.c - walk along the common elements of two tensors, and put a chunk together from another's.
 *
 *      here    start ├block┤     ├block┤     ├block┤       stride from one beginning to the next
 *      there   ref_start ├block┤├block┤├block┤             ref_stride
 */
#include "base/tpd.h"

#include "store/slab.h"

#include <string.h>

#include "codec/codec.h"
#include "codec/rounding.h"

/* Does start + (count - 1) * stride + block stay within `elements`, and is no block begun before the one before it has ended? */
static bool side_fits(uint64_t start, uint64_t stride, uint64_t block, uint64_t count, uint64_t elements)
{
	uint64_t end;

	if (count > 1 && (stride < block || block < TPD_SLAB_BLOCK_MIN))
		return false;
	return !TPD_MUL_OVERFLOW(count - 1, stride, &end) && !TPD_ADD_OVERFLOW(end, start, &end) &&
	       !TPD_ADD_OVERFLOW(end, block, &end) && end <= elements;
}

bool tpd_slab_fits(const struct tpd_slab *slab, uint64_t elements, uint64_t ref_elements)
{
	return slab->block > 0 && slab->count > 0 && (slab->count > 1 || (slab->stride == 0 && slab->ref_stride == 0)) &&
	       side_fits(slab->start, slab->stride, slab->block, slab->count, elements) &&
	       side_fits(slab->ref_start, slab->ref_stride, slab->block, slab->count, ref_elements);
}

struct tpd_slab_walk tpd_slab_walk(const struct tpd_slab *slab, uint64_t low, uint64_t high)
{
	struct tpd_slab_walk walk = {.slab = slab, .low = low, .high = high};

	if (low >= high)
		walk.next = slab->count;
	else if (slab->start + slab->block <= low) /* the first block that ends behind low */
		walk.next = slab->count == 1 ? 1 : (low - slab->start - slab->block) / slab->stride + 1;
	return walk;
}

bool tpd_slab_next(struct tpd_slab_walk *walk, struct tpd_slab_run *out_run)
{
	const struct tpd_slab *slab = walk->slab;
	uint64_t at, skipped, end;

	if (walk->next >= slab->count)
		return false;
	at = slab->start + walk->next * slab->stride;
	if (at >= walk->high)
		return false;
	skipped = at < walk->low ? walk->low - at : 0;
	end = TPD_MIN(at + slab->block, walk->high);
	*out_run = (struct tpd_slab_run){
		.at = at + skipped,
		.ref_at = slab->ref_start + walk->next * slab->ref_stride + skipped,
		.n = end - at - skipped,
	};
	walk->next++;
	return true;
}

/* Is it among those that were found? What was found last is the likeliest. */
static bool is_known(const struct tpd_slab_chunk *chunks, uint32_t count, const struct tpd_slab *slab, uint64_t chunk)
{
	for (uint32_t i = count; i-- > 0;)
		if (chunks[i].chunk == chunk && chunks[i].segment == slab->segment && chunks[i].file == slab->file)
			return true;
	return false;
}

enum tpd_status tpd_slab_chunks(const struct tpd_slab *slabs, uint32_t count, uint64_t chunk_elements, uint64_t low, uint64_t high,
				struct tpd_slab_chunk out_chunks[TPD_SLAB_CHUNKS_MAX], uint32_t *out_count, struct tpd_err *err)
{
	uint64_t named = 0;
	uint32_t found = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct tpd_slab_walk walk = tpd_slab_walk(&slabs[i], low, high);
		uint64_t next = 0; /* the slab's first chunk that was not looked for yet */
		struct tpd_slab_run run;

		while (tpd_slab_next(&walk, &run)) {
			uint64_t last = (run.ref_at + run.n - 1) / chunk_elements;

			named += run.n;
			if (named > TPD_SLAB_OVERLAP_MAX * (high - low))
				return tpd_fail(err, TPD_CORRUPT, "slabs that overlap too often");
			for (uint64_t c = TPD_MAX(next, run.ref_at / chunk_elements); c <= last; c++) {
				if (is_known(out_chunks, found, &slabs[i], c))
					continue;
				if (found == TPD_SLAB_CHUNKS_MAX)
					return tpd_fail(err, TPD_CORRUPT, "it refers to more than %u chunks", TPD_SLAB_CHUNKS_MAX);
				out_chunks[found++] = (struct tpd_slab_chunk){slabs[i].file, slabs[i].segment, c};
			}
			next = last + 1;
		}
	}
	*out_count = found;
	return TPD_OK;
}

/* Blocks, and a look at each slab for each chunk. */
static uint64_t effort_of(const struct tpd_slab *slabs, uint32_t count, uint64_t chunks)
{
	uint64_t effort;

	if (TPD_MUL_OVERFLOW(chunks, (uint64_t)count + 1, &effort))
		return UINT64_MAX;
	for (uint32_t i = 0; i < count; i++)
		if (TPD_ADD_OVERFLOW(effort, slabs[i].count, &effort))
			return UINT64_MAX;
	return effort;
}

struct tpd_slab_cost tpd_slab_weigh(const struct tpd_slab *slabs, uint32_t count, uint64_t chunk_elements, uint64_t elements,
				    uint64_t *budget)
{
	const struct tpd_slab_cost too_much = {UINT64_MAX, UINT64_MAX};
	const uint64_t effort = effort_of(slabs, count, elements / chunk_elements + 1);
	struct tpd_slab_chunk chunks[2][TPD_SLAB_CHUNKS_MAX];
	struct tpd_slab_cost cost = {0};
	uint32_t found[2] = {0};
	unsigned now = 0;

	if (effort > *budget)
		return too_much;
	*budget -= effort;
	for (uint64_t low = 0; low < elements; low += chunk_elements, now = !now) {
		uint64_t high = TPD_MIN(low + chunk_elements, elements);

		if (tpd_slab_chunks(slabs, count, chunk_elements, low, high, chunks[now], &found[now], NULL) != TPD_OK)
			return too_much;
		cost.most = TPD_MAX(cost.most, (uint64_t)found[now]);
		for (uint32_t i = 0; i < found[now]; i++) {
			const struct tpd_slab key = {.file = chunks[now][i].file, .segment = chunks[now][i].segment};

			cost.reads += !is_known(chunks[!now], found[!now], &key, chunks[now][i].chunk);
		}
	}
	return cost;
}

struct gathering {
	tpd_slab_chunk_fn chunk;
	void *arg;
	uint64_t chunk_elements;
	unsigned width;
	/* what was got last */
	struct tpd_slab_chunk at;
	const uint8_t *bytes; /* NULL: nothing yet */
	size_t len;
};

static enum tpd_status copy_run(struct gathering *g, const struct tpd_slab *slab, const struct tpd_slab_run *run, uint8_t *out,
				struct tpd_err *err)
{
	for (uint64_t done = 0; done < run->n;) {
		uint64_t from = run->ref_at + done, number = from / g->chunk_elements, within = from % g->chunk_elements;
		uint64_t n = TPD_MIN(run->n - done, g->chunk_elements - within);

		if (!g->bytes || !is_known(&g->at, 1, slab, number)) {
			enum tpd_status status = g->chunk(g->arg, slab->file, slab->segment, number, &g->bytes, &g->len, err);

			if (status)
				return status;
			g->at = (struct tpd_slab_chunk){slab->file, slab->segment, number};
		}
		if ((within + n) * g->width > g->len)
			return tpd_fail(err, TPD_CORRUPT, "it refers to elements that there are not");
		memcpy(out + done * g->width, g->bytes + within * g->width, n * g->width);
		done += n;
	}
	return TPD_OK;
}

enum tpd_status tpd_slab_gather(const struct tpd_slab *slabs, uint32_t count, enum tpd_dtype from, enum tpd_dtype to, uint64_t low,
				uint64_t n, tpd_slab_chunk_fn chunk, void *arg, uint8_t *out, struct tpd_err *err)
{
	struct gathering g = {.chunk = chunk, .arg = arg, .width = tpd_dtype_width(from)};
	enum tpd_status status = TPD_OK;

	g.chunk_elements = tpd_chunk_bytes(from) / g.width;
	memset(out, 0, n * g.width);
	for (uint32_t i = 0; i < count; i++) {
		struct tpd_slab_walk walk = tpd_slab_walk(&slabs[i], low, low + n);
		struct tpd_slab_run run;

		while (!status && tpd_slab_next(&walk, &run))
			status = copy_run(&g, &slabs[i], &run, out + (run.at - low) * g.width, err);
	}
	if (!status && from != to && to == TPD_DTYPE_F32)
		tpd_widen_in_place(out, n, from == TPD_DTYPE_BF16);
	else if (!status && from != to)
		tpd_round_in_place(out, n, to == TPD_DTYPE_BF16);
	return status;
}
