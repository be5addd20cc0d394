/* fuzz_pickle.c - any bytes as a pickle by torch.save(): within its steps, and storages that keep their contract. */
#include "base/tpd.h"

#include "format/pickle.h"
#include "format/torch_pickle.h"
#include "tests/fuzz/fuzz.h"

static void check_graph(const uint8_t *data, size_t size)
{
	struct tpd_pickle pickle;

	FUZZ_CHECK(tpd_pickle_read(data, size, TPD_PICKLE_MAX_OPS, &pickle, NULL) == TPD_OK);
	FUZZ_CHECK(pickle.steps <= 3 * (uint64_t)size + 1 && pickle.length <= size);
	FUZZ_CHECK(pickle.doubt || pickle.root < pickle.node_count);
	for (uint32_t i = 0; !pickle.doubt && i < pickle.cell_count; i++) {
		FUZZ_CHECK(pickle.cells[i].node < pickle.node_count);
		FUZZ_CHECK(pickle.cells[i].next == TPD_PICKLE_NOTHING || pickle.cells[i].next < pickle.cell_count);
	}
	tpd_pickle_release(&pickle);
}

FUZZ_TARGET(pickle)
{
	struct tpd_torch_storages found;

	check_graph(data, size);
	FUZZ_CHECK(tpd_torch_pickle(data, size, &found, NULL) == TPD_OK);
	FUZZ_CHECK(found.steps <= 6 * (uint64_t)size + TPD_TORCH_NAMES_MAX);
	FUZZ_CHECK(!found.doubt || found.count == 0);
	for (size_t i = 0; i < found.count; i++) {
		const struct tpd_torch_storage *storage = &found.items[i];

		FUZZ_CHECK(tpd_torch_find(&found, storage->key, storage->key_length) == storage);
		FUZZ_CHECK(storage->ndim <= TPD_FORMAT_MAX_DIMS && (storage->sized || !storage->typed));
		FUZZ_CHECK(storage->typed || storage->ndim == 0);
		if (storage->name[0])
			fuzz_check_name(storage->name);
	}
	tpd_torch_storages_release(&found);
	return 0;
}
