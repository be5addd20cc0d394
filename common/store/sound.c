/*
 * sound.c - is a published checkpoint whole on disk? Before content is taken for stored already, its payloads are read once:
 * if they are damaged, the source that is at hand now is the way to mend them (a new generation of the same id). So it is where what it refers to,
 * from near or afar, is damaged: it could not be restored either, and stands alone then.
 */
#include "base/tpd.h"

#include "store/store.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "store/chain.h"
#include "store/part.h"

static bool part_is_sound(const struct tpd_io *io, int dir, uint32_t file, uint32_t number, const struct tpd_part_ref *ref)
{
	struct tpd_part *part = NULL;
	TPD_AUTO_FREE uint8_t *payload = NULL;
	uint8_t digest[TPD_XXH_LEN];
	size_t cap = 0;
	bool sound;

	if (tpd_part_open(io, dir, file, number, &part, NULL) != TPD_OK)
		return false;
	tpd_part_trailer_digest(part, digest);
	sound = memcmp(digest, ref->trailer_digest, sizeof(digest)) == 0 && tpd_part_check_index(part, NULL) == TPD_OK;
	for (uint64_t c = 0; sound && c < tpd_part_chunks(part); c++) {
		struct tpd_part_entry entry;

		sound = tpd_part_entry_read(part, tpd_part_first_chunk(part) + c, &entry, NULL) == TPD_OK &&
			entry.payload_len <= TPD_CHUNK_MAX_BYTES;
		sound = sound && tpd_room(&payload, &cap, entry.payload_len, NULL) == TPD_OK &&
			tpd_part_payload_read(part, &entry, payload, NULL) == TPD_OK;
	}
	tpd_part_drop_cache(part);
	tpd_part_close(part);
	return sound;
}

struct to_see {
	struct tpd_id *ids; /* seen, and from `at` on still to be */
	size_t count, at;
};

static bool add(struct to_see *ids, const struct tpd_id *id)
{
	struct tpd_id *grown;

	for (size_t i = 0; i < ids->count; i++)
		if (tpd_id_equal(&ids->ids[i], id))
			return true;
	grown = ids->count < TPD_CHAIN_MAX ? reallocarray(ids->ids, ids->count + 1, sizeof(*grown)) : NULL;
	if (!grown)
		return false;
	ids->ids = grown;
	grown[ids->count++] = *id;
	return true;
}

/* Its own payloads; what it refers to is added to those that are still to be seen. */
static bool object_is_sound(struct tpd_store *store, const struct tpd_id *id, struct to_see *ids)
{
	const struct tpd_io *io = tpd_store_io(store);
	struct tpd_manifest m;
	bool sound = true;
	int dir = -1;

	if (tpd_store_manifest(store, id, &m, NULL) != TPD_OK)
		return false;
	if (tpd_store_object_dir(store, id, &dir, NULL) != TPD_OK) {
		tpd_manifest_release(&m);
		return false;
	}
	for (uint32_t f = 0; sound && f < m.file_count; f++) {
		const struct tpd_entry *entry = &m.entries[m.files[f]];

		for (uint32_t p = 0; sound && p < entry->part_count; p++)
			sound = part_is_sound(io, dir, f, p, &entry->parts[p]);
	}
	io->close(io, dir);
	sound = sound && (!m.has_ref || add(ids, &m.ref)) && (!m.has_earlier || add(ids, &m.earlier));
	tpd_manifest_release(&m);
	return sound;
}

bool tpd_store_sound(struct tpd_store *store, const struct tpd_id *id)
{
	struct to_see ids = {0};
	struct tpd_chain *chain = NULL;
	bool sound = add(&ids, id);

	while (sound && ids.at < ids.count) {
		const struct tpd_id next = ids.ids[ids.at++];

		sound = object_is_sound(store, &next, &ids);
	}
	free(ids.ids);
	/* Do they fit together? They may have been stored again since, or form a circle. */
	sound = sound && tpd_chain_open(store, id, false, &chain, NULL) == TPD_OK;
	tpd_chain_close(chain);
	return sound;
}
