/*
 * manifest_ties.c - which ties of a manifest are of one tensor.
 *
 * Ties ascend by state (FORMAT.md section 2.2, checked when it is parsed), so those of one stand together and are searched for by
 * halves. Rejected: an index of its own in memory, since there is one look a tensor.
 */
#include "base/tpd.h"

#include "store/manifest.h"

const struct tpd_tie *tpd_manifest_ties(const struct tpd_manifest *m, uint32_t file, uint32_t segment, uint32_t *out_count)
{
	uint32_t low = 0, high = m->tie_count, end;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct tpd_tie_end *state = &m->ties[middle].state;

		if (state->file < file || (state->file == file && state->segment < segment))
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < m->tie_count && m->ties[end].state.file == file && m->ties[end].state.segment == segment;)
		end++;
	*out_count = end - low;
	return end > low ? &m->ties[low] : NULL;
}
