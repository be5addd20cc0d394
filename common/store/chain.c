/*
 * chain.c - one entry, and all parts, of a chain's own checkpoint. Its chunks are replayed in chain_replay.c.
 */
#include "base/tpd.h"

#include "store/chain.h"

#include <string.h>

#include "store/chain_internal.h"

enum tpd_status tpd_chain_name_fault(const struct tpd_chain *chain, uint32_t link, uint32_t file, uint64_t number,
				     struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[link].manifest;

	return tpd_err_prefix(err, "%s@%llu: '%s', chunk %llu", m->run, (unsigned long long)m->step,
			      m->entries[m->files[file]].path, (unsigned long long)number);
}

enum tpd_status tpd_chain_read_entry(struct tpd_chain *chain, uint32_t link, uint32_t file, uint64_t number,
				     struct tpd_part_entry *out, struct tpd_err *err)
{
	struct tpd_chain_file *open = NULL;
	enum tpd_status status = tpd_chain_take_part(chain, link, file, number, &open, err);

	if (!status)
		status = tpd_part_entry_read(open->part, number, out, err);
	tpd_chain_give(chain, open);
	return status;
}

enum tpd_status tpd_chain_entry(struct tpd_chain *chain, uint32_t file, uint64_t number, struct tpd_part_entry *out,
				struct tpd_err *err)
{
	enum tpd_status status = tpd_chain_read_entry(chain, 0, file, number, out, err);

	if (status)
		tpd_chain_name_fault(chain, 0, file, number, err);
	return status;
}

static enum tpd_status check_part(struct tpd_chain *chain, uint32_t file, uint32_t number, struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[0].manifest;
	const struct tpd_part_ref *ref = &m->entries[m->files[file]].parts[number];
	struct tpd_chain_file *open = NULL;
	enum tpd_status status = tpd_chain_take_part(chain, 0, file, ref->first_chunk, &open, err);

	if (!status && tpd_part_bytes(open->part) != ref->bytes)
		status = tpd_fail(err, TPD_CORRUPT, "part %u has %llu bytes where the manifest says %llu", number,
				  (unsigned long long)tpd_part_bytes(open->part), (unsigned long long)ref->bytes);
	if (!status)
		status = tpd_part_check_index(open->part, err);
	tpd_chain_give(chain, open);
	return status;
}

enum tpd_status tpd_chain_check_parts(struct tpd_chain *chain, struct tpd_err *err)
{
	const struct tpd_manifest *m = &chain->links[0].manifest;

	for (uint32_t f = 0; f < m->file_count; f++) {
		const struct tpd_entry *entry = &m->entries[m->files[f]];

		for (uint32_t p = 0; p < entry->part_count; p++) {
			enum tpd_status status = check_part(chain, f, p, err);

			if (status) {
				tpd_err_prefix(err, "%s@%llu: '%s'", m->run, (unsigned long long)m->step, entry->path);
				return status;
			}
		}
	}
	return TPD_OK;
}
