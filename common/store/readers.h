/*
 * readers.h - what restore and verify have in common: one chain worker and one chunk buffer a thread, and progress.
 */
#ifndef TPD_STORE_READERS_H
#define TPD_STORE_READERS_H

#include "base/tpd.h"
#include "store/chain.h"
#include "store/ingest.h"

struct tpd_readers {
	struct tpd_chain_worker **workers;
	uint8_t **buffers;
	size_t *sizes;
	unsigned threads;
};

enum tpd_status tpd_readers_init(struct tpd_readers *readers, unsigned threads, struct tpd_err *err);
void tpd_readers_release(struct tpd_readers *readers); /* safe on a zeroed struct */
/* The thread's buffer, of so many bytes at least. */
enum tpd_status tpd_readers_room(struct tpd_readers *readers, unsigned worker, size_t bytes, uint8_t **out, struct tpd_err *err);
/* Tell the caller, and stop when it wants that. */
enum tpd_status tpd_readers_progress(const struct tpd_progress *progress, uint64_t done, uint64_t total, struct tpd_err *err);

#endif
