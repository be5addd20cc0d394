/*
 * readers.c - see readers.h. Buffers grow to the most that a thread was asked for: a chunk is 512 KiB, or 4 MiB of untyped bytes; some are read three at a time.
 */
#include "base/tpd.h"

#include "store/readers.h"

#include <stdlib.h>

#include "base/bytes.h"

enum tpd_status tpd_readers_init(struct tpd_readers *readers, unsigned threads, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	*readers = (struct tpd_readers){
		.workers = calloc(threads, sizeof(*readers->workers)),
		.buffers = calloc(threads, sizeof(*readers->buffers)),
		.sizes = calloc(threads, sizeof(*readers->sizes)),
		.threads = threads,
	};
	if (!readers->workers || !readers->buffers || !readers->sizes)
		status = tpd_fail_nomem(err);
	for (unsigned t = 0; !status && t < threads; t++)
		status = tpd_chain_worker_new(&readers->workers[t], err);
	if (status)
		tpd_readers_release(readers);
	return status;
}

void tpd_readers_release(struct tpd_readers *readers)
{
	for (unsigned t = 0; t < readers->threads; t++) {
		if (readers->workers)
			tpd_chain_worker_free(readers->workers[t]);
		if (readers->buffers)
			free(readers->buffers[t]);
	}
	free(readers->workers);
	free(readers->buffers);
	free(readers->sizes);
	*readers = (struct tpd_readers){0};
}

enum tpd_status tpd_readers_room(struct tpd_readers *readers, unsigned worker, size_t bytes, uint8_t **out, struct tpd_err *err)
{
	enum tpd_status status = tpd_room(&readers->buffers[worker], &readers->sizes[worker], bytes, err);

	*out = readers->buffers[worker];
	return status;
}

enum tpd_status tpd_readers_progress(const struct tpd_progress *progress, uint64_t done, uint64_t total, struct tpd_err *err)
{
	if (progress->fn)
		progress->fn(progress->arg, done, total);
	if (progress->cancel && atomic_load(progress->cancel))
		return tpd_fail(err, TPD_CANCELLED, "stopped on request");
	return TPD_OK;
}
