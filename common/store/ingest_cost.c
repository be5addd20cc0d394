/*
 * ingest_cost.c - what it takes to read a checkpoint through its chain.
 *
 * Where no tensor was cut anew a chunk needs one of each link. At each cut it may need several, and each of these several at the next:
 * the most that one chunk may need bounds a reader's memory ("width"), and how many chunks are decoded for one on the average
 * ("replay") is its time.
 */
#include "base/tpd.h"

#include "store/ingest_internal.h"

#define WIDTH_LINKS_MAX (1u << 15)   /* chunks that one may need, where it is not predicted: then three times as many */
#define WIDTH_BYTES_MAX (128u << 20) /* of them at a time, likewise */

static struct tpd_slab_cost weigh(const struct tpd_entry *entry, const struct tpd_segment *seg, uint64_t *budget)
{
	uint64_t elements = seg->length / tpd_dtype_width(seg->dtype);

	return tpd_slab_weigh(entry->slabs + seg->ref_file, seg->ref_segment, tpd_chunk_bytes(seg->dtype) / tpd_dtype_width(seg->dtype),
			      elements, budget);
}

/* Of one link. What has slabs has segments of its own in every link of a chain. */
struct link_cost {
	uint64_t width, derived; /* 0: it has none */
	uint64_t chunks, reads;
};

static struct link_cost cost_of_link(const struct tpd_manifest *m, uint64_t *budget)
{
	struct link_cost sum = {0};

	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		for (uint32_t p = 0; p < entry->part_count; p++)
			sum.chunks += entry->parts[p].chunks;
		for (uint32_t s = 0; entry->slab_count > 0 && s < entry->segment_count; s++) {
			const struct tpd_segment *seg = &entry->segments[s];
			struct tpd_slab_cost cost;

			if (!seg->has_ref || !seg->in_slabs)
				continue;
			cost = weigh(entry, seg, budget);
			if (seg->derived) {
				sum.derived = TPD_MAX(sum.derived, cost.most);
				continue;
			}
			sum.width = TPD_MAX(sum.width, cost.most);
			sum.reads += TPD_MIN(cost.reads, (uint64_t)UINT32_MAX);
			sum.reads -= TPD_MIN(sum.reads, tpd_segment_chunks(seg)); /* instead of one for each */
		}
	}
	return sum;
}

uint64_t tpd_ingest_width_of(const struct tpd_manifest *m)
{
	uint64_t budget = TPD_SLAB_BUDGET;

	return cost_of_link(m, &budget).width;
}

double tpd_ingest_replay_max(uint32_t max_depth)
{
	return TPD_MAX((double)TPD_INGEST_REPLAY_MAX, 1.5 * max_depth);
}

struct tpd_ingest_cost tpd_ingest_cost(const struct tpd_chain *chain)
{
	struct tpd_ingest_cost cost = {.width = 1, .derived = 1, .links = chain ? tpd_chain_links(chain) : 1, .replay = 1};
	uint64_t budget = TPD_SLAB_BUDGET; /* for all: it is others who wrote these */

	for (uint32_t l = cost.links; chain && l-- > 0;) {
		struct link_cost link = cost_of_link(tpd_chain_link(chain, l), &budget);

		cost.width *= TPD_MIN(TPD_MAX(link.width, (uint64_t)1), (uint64_t)UINT32_MAX);
		cost.width = TPD_MIN(cost.width, (uint64_t)UINT32_MAX);
		cost.derived = TPD_MAX(cost.derived, TPD_MIN(link.derived, (uint64_t)UINT32_MAX));
		if (l + 1 < cost.links)
			cost.replay = tpd_ingest_replay(&cost, link.chunks + link.reads, link.chunks);
	}
	return cost;
}

double tpd_ingest_replay(const struct tpd_ingest_cost *below, uint64_t reads, uint64_t chunks)
{
	return 1 + below->replay * (chunks ? (double)reads / (double)chunks : 1);
}

/*
 * Below its first cut a chunk needs at most `width` chunks of each link, and those that wait at all cuts are less than twice as many: each
 * cut has at least twice as many as the one above it, or no more than that. A reader's limits (chain_replay.c) are higher, four times and three times.
 */
bool tpd_ingest_cost_fits(const struct tpd_ingest_cost *below, uint64_t most, uint32_t chunk_bytes)
{
	uint64_t width = TPD_MIN(below->width * below->derived, (uint64_t)UINT32_MAX) * TPD_MIN(most, (uint64_t)TPD_INGEST_SLAB_CHUNKS);

	/* Masters are wider than what is derived from them. */
	if (below->derived > 1)
		chunk_bytes = TPD_MAX(chunk_bytes, 4 * TPD_CHUNK_ELEMENTS);
	return most <= TPD_INGEST_SLAB_CHUNKS && width * below->links <= WIDTH_LINKS_MAX && 2 * width * chunk_bytes <= WIDTH_BYTES_MAX;
}
