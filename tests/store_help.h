/*
 * store_help.h - for the tests of the store: a directory for each test, checkpoints to publish, and refs by hand.
 *
 * Checkpoints here have one file of one raw chunk, put together by make_unfinished(); what is in them does not matter.
 */
#ifndef TESTS_STORE_HELP_H
#define TESTS_STORE_HELP_H

#include "base/tpd.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "fault_io.h"
#include "store/part.h"
#include "store/store.h"

#define RUN "sweep/lr3"
#define RUN_FILE "refs/sweep%2Flr3"
#define NOBODY 65534

static const struct tpd_io *io;
static char root[64];
static char path[96]; /* of the store: ROOT/s */
static int dir;       /* of ROOT */
static struct tpd_err err;

static TPD_UNUSED void set_up(void)
{
	io = tpd_io_posix();
	/* In memory when there is such a place: these tests fsync some ten thousand times. */
	snprintf(root, sizeof(root), "%s/t_store-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(root));
	ck_assert_int_eq(chmod(root, 0755), 0);
	snprintf(path, sizeof(path), "%s/s", root);
	dir = io->opendir(io, AT_FDCWD, root);
	ck_assert_int_ge(dir, 0);
	err = (struct tpd_err){0};
}

static TPD_UNUSED void tear_down(void)
{
	io->close(io, dir);
	ck_assert_int_eq(tpd_io_remove_tree(io, AT_FDCWD, root, NULL), TPD_OK);
}

static TPD_UNUSED struct tpd_store *open_store(enum tpd_store_flags flags)
{
	struct tpd_store *store = NULL;

	ck_assert_msg(tpd_store_open(io, path, flags, 0, &store, &err) == TPD_OK, "%s", err.text);
	return store;
}

static TPD_UNUSED struct tpd_run_lock *lock_run(struct tpd_store *store, const char *run)
{
	struct tpd_run_lock *lock = NULL;

	ck_assert_msg(tpd_store_run_lock(store, run, 0, &lock, &err) == TPD_OK, "%s", err.text);
	return lock;
}

/* Names below ROOT/s */
static TPD_UNUSED const char *inside(const char *name)
{
	static char buf[4][512];
	static unsigned turn;

	turn = (turn + 1) % 4;
	snprintf(buf[turn], sizeof(buf[turn]), "s/%s", name);
	return buf[turn];
}

static TPD_UNUSED bool exists(const char *name)
{
	struct stat st;

	return io->stat(io, dir, inside(name), &st) == 0;
}

static TPD_UNUSED void put(const char *name, const void *data, size_t len)
{
	ck_assert_int_eq(tpd_io_publish(io, dir, inside(name), data, len, true, NULL), TPD_OK);
}

static TPD_UNUSED struct tpd_buf get(const char *name)
{
	struct tpd_buf buf = {0};

	ck_assert_int_eq(tpd_io_read_file(io, dir, inside(name), 1u << 20, &buf.data, &buf.len, NULL), TPD_OK);
	buf.cap = buf.len + 1;
	return buf;
}

static TPD_UNUSED int count_name(const char *name TPD_UNUSED, void *arg)
{
	++*(unsigned *)arg;
	return 0;
}

static TPD_UNUSED unsigned entries_in(const char *name)
{
	unsigned n = 0;

	ck_assert_int_eq(io->list(io, dir, inside(name), count_name, &n), 0);
	return n;
}

/* --- checkpoints --- */

static const TPD_UNUSED struct tpd_begin begin = {.part_size = 1u << 20};

/* The manifest of a checkpoint whose one file holds the single byte `content`; without its part. */
static TPD_UNUSED struct tpd_manifest make_manifest(const char *run, uint64_t step, uint8_t content)
{
	struct tpd_manifest m = {.run = strdup(run), .step = step, .source = strdup("/src"),
				 .created_ns = 1000 + (int64_t)step};
	struct tpd_entry *entry;

	m.entries = calloc(1, sizeof(*m.entries));
	ck_assert_ptr_nonnull(m.entries);
	m.entry_count = 1;
	entry = &m.entries[0];
	*entry = (struct tpd_entry){.path = strdup("model.bin"), .type = TPD_ENTRY_FILE, .mode = 0644, .size = 1};
	tpd_sha256_once(&content, 1, entry->sha256);
	entry->segments = calloc(1, sizeof(*entry->segments));
	entry->about = calloc(1, sizeof(*entry->about));
	entry->parts = calloc(1, sizeof(*entry->parts));
	ck_assert(entry->segments && entry->about && entry->parts);
	entry->segment_count = entry->part_count = 1;
	entry->segments[0] = (struct tpd_segment){.length = 1};
	entry->about[0] = (struct tpd_segment_about){.name = strdup(""), .row = 1, .stored = 1};
	return m;
}

static TPD_UNUSED enum tpd_status write_part(const struct tpd_io *with, int at, struct tpd_manifest *m, uint8_t content)
{
	struct tpd_part_entry chunk = {.payload_len = 1, .decoded_len = 1, .encoding = TPD_ENCODING_RAW};
	struct tpd_part_ref *ref = &m->entries[0].parts[0];
	struct tpd_part_writer *w = NULL;
	enum tpd_status status = tpd_part_create(with, at, "ingest/x@1", 0, 0, 0, &w, &err);

	if (status)
		return status;
	tpd_xxh128_first(&content, 1, chunk.payload_digest, TPD_PAYLOAD_DIGEST);
	tpd_xxh128_first(&content, 1, chunk.decoded_digest, TPD_DECODED_DIGEST);
	status = tpd_part_append(w, &chunk, &content, &err);
	if (!status)
		return tpd_part_finish(w, &ref->chunks, &ref->bytes, ref->trailer_digest, &err);
	tpd_part_abandon(w);
	return status;
}

/* A directory in ingest/ with everything but the manifest; *out_m is sealed. */
static TPD_UNUSED enum tpd_status make_unfinished(struct tpd_run_lock *lock, const char *run, uint64_t step,
						  uint8_t content,
				       struct tpd_manifest *out_m)
{
	const struct tpd_io *with = tpd_store_io(tpd_run_lock_store(lock));
	struct tpd_manifest m = make_manifest(run, step, content);
	struct tpd_begin got;
	bool resumed;
	int at = -1;
	enum tpd_status status = tpd_store_ingest_open(lock, step, &begin, &got, &resumed, &at, &err);

	if (!status) {
		status = write_part(with, at, &m, content);
		with->close(with, at);
	}
	if (!status)
		status = tpd_manifest_seal(&m, &err);
	if (status)
		tpd_manifest_release(&m);
	else
		*out_m = m;
	return status;
}

static TPD_UNUSED enum tpd_status store_one(struct tpd_run_lock *lock, const char *run, uint64_t step, uint8_t content,
				 struct tpd_id *out_id, uint32_t *out_version)
{
	struct tpd_manifest m = {0};
	enum tpd_status status = make_unfinished(lock, run, step, content, &m);

	if (!status)
		status = tpd_store_publish(lock, &m, out_version, &err);
	*out_id = m.id;
	tpd_manifest_release(&m);
	return status;
}

static TPD_UNUSED struct tpd_id must_store(struct tpd_run_lock *lock, const char *run, uint64_t step, uint8_t content,
				uint32_t want_version)
{
	struct tpd_id id;
	uint32_t version = 0;

	ck_assert_msg(store_one(lock, run, step, content, &id, &version) == TPD_OK, "%s", err.text);
	ck_assert_uint_eq(version, want_version);
	return id;
}

static TPD_UNUSED void object_name(const struct tpd_id *id, unsigned generation, char out[128])
{
	char hex[TPD_ID_HEX];

	tpd_id_hex(id, hex);
	snprintf(out, 128, "objects/%.2s/%s.%u", hex, hex, generation);
}

/* --- refs, by hand --- */

static TPD_UNUSED void put_record(struct tpd_buf *out, uint8_t type, const void *body, size_t len)
{
	uint8_t digest[TPD_XXH_LEN];
	size_t start = out->len;

	tpd_buf_u32(out, (uint32_t)len + 1);
	tpd_buf_u8(out, type);
	tpd_buf_put(out, body, len);
	tpd_xxh128(out->data + start, out->len - start, digest);
	tpd_buf_put(out, digest, 8);
}

static TPD_UNUSED void put_run(struct tpd_buf *out, const char *name)
{
	struct tpd_buf body = {0};

	tpd_buf_str(&body, name);
	put_record(out, 1, body.data, body.len);
	tpd_buf_release(&body);
}

static TPD_UNUSED void put_version(struct tpd_buf *out, uint64_t step, uint64_t version, uint8_t id_byte)
{
	struct tpd_buf body = {0};

	tpd_buf_varint(&body, step);
	tpd_buf_varint(&body, version);
	for (int i = 0; i < 32; i++)
		tpd_buf_u8(&body, id_byte);
	tpd_buf_u64(&body, 77);
	put_record(out, 2, body.data, body.len);
	tpd_buf_release(&body);
}

/* run record, RUN@10~1 and RUN@20~1 */
static TPD_UNUSED struct tpd_buf honest_refs(void)
{
	struct tpd_buf out = {0};

	put_run(&out, RUN);
	put_version(&out, 10, 1, 0xa1);
	put_version(&out, 20, 1, 0xa2);
	return out;
}

static TPD_UNUSED size_t first_record(const struct tpd_buf *refs)
{
	return 12 + tpd_get_u32(refs->data);
}

#endif
