/*
 * t_part.c - payload parts: written and read back, every byte flipped, every length cut, one field changed at a time
 * with the checks made right again, and a disk that fails at each call or writes something else.
 */
#include "base/tpd.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fault_io.h"
#include "store/part.h"

#define FILE_NUMBER 2
#define PART_NUMBER 1
#define FIRST 5
#define NAME "f00002.p00001"
#define CHUNKS 3
#define INDEX_AT (16 + 100 + 0 + 7) /* the payloads' lengths */
#define SIZE (INDEX_AT + CHUNKS * 32 + 80)

static const struct tpd_io *io;
static char root[] = "/tmp/t_part-XXXXXX";
static int dir;
static struct tpd_err err;

static void set_up(void)
{
	io = tpd_io_posix();
	ck_assert_ptr_nonnull(mkdtemp(root));
	dir = io->opendir(io, AT_FDCWD, root);
	ck_assert_int_ge(dir, 0);
}

static void tear_down(void)
{
	io->close(io, dir);
	ck_assert_int_eq(tpd_io_remove_tree(io, AT_FDCWD, root, NULL), TPD_OK);
}

static bool exists(const char *name)
{
	struct stat st;

	return io->stat(io, dir, name, &st) == 0;
}

/* Chunk i of the part under test: a payload of bytes i, decoded bytes that only their digest stands for. */
static struct tpd_part_entry make_chunk(unsigned i, uint8_t payload[100])
{
	static const uint32_t payload_lens[CHUNKS] = {100, 0, 7}, decoded_lens[CHUNKS] = {1u << 22, 4096, 7};
	static const enum tpd_encoding encodings[CHUNKS] = {TPD_ENCODING_GRID, TPD_ENCODING_COPY, TPD_ENCODING_RAW};
	struct tpd_part_entry entry = {.payload_len = payload_lens[i], .decoded_len = decoded_lens[i],
				       .encoding = encodings[i]};

	memset(payload, (int)i + 1, 100);
	tpd_xxh128_first(payload, entry.payload_len, entry.payload_digest, TPD_PAYLOAD_DIGEST);
	memset(entry.decoded_digest, 0x50 + (int)i, sizeof(entry.decoded_digest));
	return entry;
}

struct written {
	uint64_t chunks, bytes;
	uint8_t digest[TPD_XXH_LEN];
};

static enum tpd_status write_part(const struct tpd_io *with, struct written *out)
{
	struct tpd_part_writer *w = NULL;
	enum tpd_status status = tpd_part_create(with, dir, "ingest/x@1", FILE_NUMBER, PART_NUMBER, FIRST, &w, &err);

	for (unsigned i = 0; !status && i < CHUNKS; i++) {
		uint8_t payload[100];
		struct tpd_part_entry entry = make_chunk(i, payload);

		status = tpd_part_append(w, &entry, payload, &err);
		if (status)
			tpd_part_abandon(w);
	}
	return status ? status : tpd_part_finish(w, &out->chunks, &out->bytes, out->digest, &err);
}

/* Everything that reading the part whole comes to: the first fault, or TPD_OK. */
static enum tpd_status read_part(void)
{
	struct tpd_part *part = NULL;
	enum tpd_status status = tpd_part_open(io, dir, FILE_NUMBER, PART_NUMBER, &part, &err);

	if (!status)
		status = tpd_part_check_index(part, &err);
	for (uint64_t c = FIRST; !status && c < FIRST + CHUNKS; c++) {
		struct tpd_part_entry entry;
		uint8_t *payload;

		status = tpd_part_entry_read(part, c, &entry, &err);
		if (status)
			break;
		payload = malloc(entry.payload_len + 1u);
		ck_assert_ptr_nonnull(payload);
		status = tpd_part_payload_read(part, &entry, payload, &err);
		free(payload);
	}
	tpd_part_close(part);
	return status;
}

static uint8_t *load(void)
{
	uint8_t *data = NULL;
	size_t len = 0;

	ck_assert_int_eq(tpd_io_read_file(io, dir, NAME, 1u << 20, &data, &len, NULL), TPD_OK);
	ck_assert_uint_eq(len, SIZE);
	return data;
}

static void save(const uint8_t *data, size_t len)
{
	int fd = io->open(io, dir, NAME, O_WRONLY | O_CREAT | O_TRUNC,
			  0644); /* no fsync: there are hundreds of these */

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(tpd_io_write_all(io, fd, data, len, 0, NAME, NULL), TPD_OK);
	io->close(io, fd);
}

START_TEST(round_trip)
{
	struct written written = {0};
	struct tpd_part *part = NULL;
	uint8_t digest[TPD_XXH_LEN], *data;
	char name[TPD_PART_NAME];

	tpd_part_name(FILE_NUMBER, PART_NUMBER, name);
	ck_assert_str_eq(name, NAME);
	ck_assert_int_eq(write_part(io, &written), TPD_OK);
	ck_assert(exists(NAME) && !exists(NAME ".tmp"));
	ck_assert_uint_eq(written.chunks, CHUNKS);
	ck_assert_uint_eq(written.bytes, SIZE);
	data = load();
	tpd_xxh128(data + SIZE - 80, 80, digest);
	ck_assert_mem_eq(digest, written.digest, sizeof(digest));
	free(data);

	ck_assert_int_eq(tpd_part_open(io, dir, FILE_NUMBER, PART_NUMBER, &part, NULL), TPD_OK);
	ck_assert_uint_eq(tpd_part_first_chunk(part), FIRST);
	ck_assert_uint_eq(tpd_part_chunks(part), CHUNKS);
	ck_assert_uint_eq(tpd_part_bytes(part), SIZE);
	tpd_part_trailer_digest(part, digest);
	ck_assert_mem_eq(digest, written.digest, sizeof(digest));
	ck_assert_int_eq(tpd_part_check_index(part, NULL), TPD_OK);
	for (unsigned i = 0; i < CHUNKS; i++) {
		uint8_t wanted[100], got[100];
		struct tpd_part_entry honest = make_chunk(i, wanted), entry = {0};

		ck_assert_int_eq(tpd_part_entry_read(part, FIRST + i, &entry, NULL), TPD_OK);
		ck_assert_uint_eq(entry.payload_len, honest.payload_len);
		ck_assert_int_eq(entry.encoding, honest.encoding);
		ck_assert_mem_eq(entry.decoded_digest, honest.decoded_digest, TPD_DECODED_DIGEST);
		ck_assert_int_eq(tpd_part_payload_read(part, &entry, got, NULL), TPD_OK);
		ck_assert_mem_eq(got, wanted, entry.payload_len);
	}
	{
		struct tpd_part_entry entry;

		ck_assert_int_eq(tpd_part_entry_read(part, FIRST - 1, &entry, NULL), TPD_CORRUPT);
		ck_assert_int_eq(tpd_part_entry_read(part, FIRST + CHUNKS, &entry, NULL), TPD_CORRUPT);
		ck_assert_int_eq(tpd_part_entry_read(part, UINT64_MAX, &entry, NULL), TPD_CORRUPT);
	}
	tpd_part_drop_cache(part);
	tpd_part_close(part);
	tpd_part_close(NULL);
}
END_TEST

START_TEST(the_bytes_are_the_formats)
{
	struct written written;
	uint8_t *data, digest[TPD_XXH_LEN], rest[28];

	ck_assert_int_eq(write_part(io, &written), TPD_OK);
	data = load();
	ck_assert_mem_eq(data, "TPDPART1\1\0\0\0\0\0\0\0", 16);
	ck_assert_uint_eq(data[16], 1);
	ck_assert_uint_eq(data[INDEX_AT - 1], 3);
	ck_assert_uint_eq(tpd_get_u32(data + INDEX_AT), 16);
	ck_assert_uint_eq(tpd_get_u32(data + INDEX_AT + 32), 116);
	ck_assert_uint_eq(tpd_get_u32(data + INDEX_AT + 4), 100 | (uint32_t)TPD_ENCODING_GRID << 24);
	memcpy(rest, data + INDEX_AT, 8);
	memcpy(rest + 8, data + INDEX_AT + 12, 20);
	tpd_xxh128(rest, sizeof(rest), digest);
	ck_assert_mem_eq(data + INDEX_AT + 8, digest, 4);
	tpd_xxh128(data + 16, 100, digest);
	ck_assert_mem_eq(data + INDEX_AT + 12, digest, 8);
	for (unsigned i = 20; i < 32; i++)
		ck_assert_uint_eq(data[INDEX_AT + i], 0x50);
	ck_assert_uint_eq(tpd_get_u64(data + SIZE - 80), INDEX_AT);
	ck_assert_uint_eq(tpd_get_u32(data + SIZE - 72), CHUNKS);
	ck_assert_uint_eq(tpd_get_u32(data + SIZE - 68), FILE_NUMBER);
	ck_assert_uint_eq(tpd_get_u32(data + SIZE - 64), PART_NUMBER);
	ck_assert_uint_eq(tpd_get_u64(data + SIZE - 56), FIRST);
	ck_assert_mem_eq(data + SIZE - 8, "TPDPEND1", 8);
	free(data);
}
END_TEST

START_TEST(absent_and_foreign)
{
	struct tpd_part *part = NULL;
	struct written written;

	ck_assert_int_eq(tpd_part_open(io, dir, FILE_NUMBER, PART_NUMBER, &part, &err), TPD_NOT_FOUND);
	ck_assert_str_eq(err.text, "there is no '" NAME "'");
	ck_assert_int_eq(write_part(io, &written), TPD_OK);
	/* Under another part's name it is not that part. */
	ck_assert_int_eq(io->rename(io, dir, NAME, dir, "f00002.p00000", true), 0);
	ck_assert_int_eq(tpd_part_open(io, dir, FILE_NUMBER, 0, &part, &err), TPD_CORRUPT);
	ck_assert_int_eq(io->rename(io, dir, "f00002.p00000", dir, "f00000.p00001", true), 0);
	ck_assert_int_eq(tpd_part_open(io, dir, 0, PART_NUMBER, &part, &err), TPD_CORRUPT);
	ck_assert_int_eq(io->mkdir(io, dir, NAME, 0755), 0);
	ck_assert_int_eq(tpd_part_open(io, dir, FILE_NUMBER, PART_NUMBER, &part, &err), TPD_CORRUPT);
}
END_TEST

START_TEST(every_byte_counts)
{
	struct written written;
	uint8_t *data;

	ck_assert_int_eq(write_part(io, &written), TPD_OK);
	data = load();
	for (size_t i = 0; i < SIZE; i++) {
		enum tpd_status status;

		data[i] ^= (uint8_t)(1u << (i % 8));
		save(data, SIZE);
		status = read_part();
		/* Version and flags of the header have no digest: there a flipped bit reads as a newer version. */
		ck_assert(status == TPD_CORRUPT || (status == TPD_UNSUPPORTED && i >= 8 && i < 16));
		data[i] ^= (uint8_t)(1u << (i % 8));
	}
	for (size_t len = 0; len < SIZE; len++) {
		save(data, len);
		ck_assert_int_eq(read_part(), TPD_CORRUPT);
	}
	save(data, SIZE);
	ck_assert_int_eq(read_part(), TPD_OK);
	free(data);
}
END_TEST

struct change {
	size_t at, width;
	uint64_t value;
	enum tpd_status expect;
};

#define ENTRY(i) (INDEX_AT + 32 * (i))
#define TRAILER (SIZE - 80)
static const struct change changes[] = {
	{0, 0, 0, TPD_OK}, /* resealing changes nothing */
	{0, 1, 'X', TPD_CORRUPT},
	{8, 4, 0, TPD_CORRUPT},
	{8, 4, 2, TPD_UNSUPPORTED},
	{12, 4, 1, TPD_UNSUPPORTED},
	{16, 1, 0xee, TPD_CORRUPT}, /* a payload */
	{ENTRY(0), 4, 15, TPD_CORRUPT},
	{ENTRY(0), 4, 17, TPD_CORRUPT},
	{ENTRY(2), 4, 115, TPD_CORRUPT}, /* overlaps the one before */
	{ENTRY(2), 4, UINT32_MAX, TPD_CORRUPT},
	{ENTRY(2), 4, UINT32_MAX - 3, TPD_CORRUPT}, /* whose end would wrap round */
	{ENTRY(2) + 4, 3, 8, TPD_CORRUPT}, /* into the index */
	{ENTRY(2) + 4, 3, 6, TPD_CORRUPT}, /* not up to it */
	{ENTRY(0) + 4, 3, 0xffffff, TPD_CORRUPT},
	{ENTRY(0) + 4, 3, (1u << 22) + 1, TPD_CORRUPT},
	{ENTRY(1) + 7, 1, TPD_ENCODING_COUNT, TPD_UNSUPPORTED},
	{ENTRY(1) + 7, 1, 77, TPD_UNSUPPORTED}, /* nobody's */
	{ENTRY(1) + 7, 1, 0x80, TPD_UNSUPPORTED},
	{ENTRY(0) + 12, 1, 0, TPD_CORRUPT}, /* payload's digest */
	{TRAILER, 8, INDEX_AT - 32, TPD_CORRUPT},
	{TRAILER, 8, 15, TPD_CORRUPT},
	{TRAILER, 8, SIZE, TPD_CORRUPT},
	{TRAILER, 8, UINT64_MAX, TPD_CORRUPT},
	{TRAILER + 8, 4, CHUNKS - 1, TPD_CORRUPT},
	{TRAILER + 8, 4, CHUNKS + 1, TPD_CORRUPT},
	{TRAILER + 8, 4, UINT32_MAX, TPD_CORRUPT},
	{TRAILER + 12, 4, FILE_NUMBER + 1, TPD_CORRUPT},
	{TRAILER + 16, 4, PART_NUMBER + 1, TPD_CORRUPT},
	{TRAILER + 20, 4, 1, TPD_UNSUPPORTED},
	{TRAILER + 24, 8, UINT64_MAX, TPD_CORRUPT},
	{TRAILER + 24, 8, FIRST + 1, TPD_CORRUPT}, /* the first chunk asked for is not in it */
	{TRAILER + 32, 8, 1, TPD_UNSUPPORTED},
	{TRAILER + 72, 1, 'X', TPD_CORRUPT},
};

static void reseal(uint8_t *data)
{
	uint8_t rest[28], digest[TPD_XXH_LEN];

	for (size_t i = 0; i < CHUNKS; i++) {
		memcpy(rest, data + ENTRY(i), 8);
		memcpy(rest + 8, data + ENTRY(i) + 12, 20);
		tpd_xxh128(rest, sizeof(rest), digest);
		memcpy(data + ENTRY(i) + 8, digest, 4);
	}
	tpd_xxh128(data + INDEX_AT, CHUNKS * 32, data + TRAILER + 40);
	tpd_xxh128(data + TRAILER, 56, data + TRAILER + 56);
}

START_TEST(one_field_changed)
{
	const struct change *c = &changes[_i];
	struct written written;
	uint8_t *data;

	ck_assert_int_eq(write_part(io, &written), TPD_OK);
	data = load();
	for (size_t i = 0; i < c->width; i++)
		data[c->at + i] = (uint8_t)(c->value >> (8 * i));
	reseal(data);
	save(data, SIZE);
	ck_assert_int_eq(read_part(), c->expect);
	free(data);
}
END_TEST

/* The index alone tells of payloads that overlap, leave a gap or end early, whatever is in them. */
START_TEST(payloads_follow_one_another)
{
	static const struct change bad[] = {
		{ENTRY(1), 4, 117, TPD_CORRUPT},
		{ENTRY(2), 4, 115, TPD_CORRUPT},
		{ENTRY(2) + 4, 3, 6, TPD_CORRUPT},
		{ENTRY(0) + 4, 3, 99, TPD_CORRUPT},
		{ENTRY(0), 4, 16, TPD_OK}, /* as it was */
	};
	struct written written;
	uint8_t *data;

	for (size_t i = 0; i < TPD_ARRAY_LEN(bad); i++) {
		struct tpd_part *part = NULL;

		ck_assert_int_eq(write_part(io, &written), TPD_OK);
		data = load();
		for (size_t b = 0; b < bad[i].width; b++)
			data[bad[i].at + b] = (uint8_t)(bad[i].value >> (8 * b));
		reseal(data);
		save(data, SIZE);
		free(data);
		ck_assert_int_eq(tpd_part_open(io, dir, FILE_NUMBER, PART_NUMBER, &part, &err), TPD_OK);
		ck_assert_int_eq(tpd_part_check_index(part, &err), bad[i].expect);
		tpd_part_close(part);
	}
}
END_TEST

START_TEST(an_old_temporary_is_replaced)
{
	struct written written;

	ck_assert_int_eq(tpd_io_publish(io, dir, NAME ".tmp", "junk", 4, true, NULL), TPD_OK);
	ck_assert_int_eq(tpd_io_publish(io, dir, NAME, "junk", 4, true, NULL), TPD_OK);
	ck_assert_int_eq(write_part(io, &written), TPD_OK);
	ck_assert(!exists(NAME ".tmp"));
	ck_assert_int_eq(read_part(), TPD_OK);
}
END_TEST

START_TEST(given_up)
{
	struct tpd_part_writer *w = NULL;
	uint8_t payload[100];
	struct tpd_part_entry entry = make_chunk(0, payload);

	ck_assert_int_eq(tpd_part_create(io, dir, "ingest/x@1", FILE_NUMBER, PART_NUMBER, FIRST, &w, NULL), TPD_OK);
	ck_assert_int_eq(tpd_part_append(w, &entry, payload, NULL), TPD_OK);
	ck_assert_uint_eq(tpd_part_decoded(w), 1u << 22);
	ck_assert(exists(NAME ".tmp"));
	tpd_part_abandon(w);
	ck_assert(!exists(NAME ".tmp") && !exists(NAME));
	tpd_part_abandon(NULL);
}
END_TEST

/* A disk that stores another byte is found before the part gets its name. */
START_TEST(read_back)
{
	for (uint64_t at = 0; at < SIZE; at += 3) {
		struct fault fault = {.fail_at = -1, .flip = true, .flip_at = at};
		struct tpd_io bad = fault_io(&fault);
		struct written written;

		ck_assert_int_eq(write_part(&bad, &written), TPD_CORRUPT);
		ck_assert(!exists(NAME) && !exists(NAME ".tmp"));
	}
}
END_TEST

START_TEST(any_call_fails)
{
	static const int errors[] = {EIO, ENOSPC};
	struct fault count = {.fail_at = -1};
	struct tpd_io counting = fault_io(&count);
	struct written written;

	ck_assert_int_eq(write_part(&counting, &written), TPD_OK);
	ck_assert_int_gt(count.calls, 8);
	for (int at = 0; at < count.calls; at++) {
		struct fault fault = {.fail_at = at, .sys = errors[_i]};
		struct tpd_io bad = fault_io(&fault);

		io->unlink(io, dir, NAME);
		err = (struct tpd_err){0};
		ck_assert_int_eq(write_part(&bad, &written), TPD_IO);
		ck_assert_int_eq(err.sys, errors[_i]);
		ck_assert_ptr_nonnull(strstr(err.text, NAME));
		ck_assert(!exists(NAME) && !exists(NAME ".tmp"));
	}
	ck_assert_int_eq(write_part(io, &written), TPD_OK);
	ck_assert_int_eq(read_part(), TPD_OK);
}
END_TEST

/* Many small payloads and some that are larger than what is read back at once. */
START_TEST(many_chunks)
{
	struct tpd_part_writer *w = NULL;
	struct tpd_part *part = NULL;
	uint8_t *payload = malloc(700000), digest[TPD_XXH_LEN];
	uint64_t chunks = 0, bytes = 0;

	ck_assert_ptr_nonnull(payload);
	ck_assert_int_eq(tpd_part_create(io, dir, "ingest/x@1", 0, 0, 0, &w, NULL), TPD_OK);
	for (unsigned i = 0; i < 5000; i++) {
		struct tpd_part_entry entry = {.payload_len = i % 1000 == 999 ? 700000 : i % 70, .decoded_len = 700000};

		memset(payload, (int)i, entry.payload_len);
		tpd_xxh128_first(payload, entry.payload_len, entry.payload_digest, TPD_PAYLOAD_DIGEST);
		ck_assert_int_eq(tpd_part_append(w, &entry, payload, NULL), TPD_OK);
	}
	ck_assert_int_eq(tpd_part_finish(w, &chunks, &bytes, digest, NULL), TPD_OK);
	ck_assert_uint_eq(chunks, 5000);
	ck_assert_int_eq(tpd_part_open(io, dir, 0, 0, &part, NULL), TPD_OK);
	ck_assert_int_eq(tpd_part_check_index(part, NULL), TPD_OK);
	for (unsigned i = 0; i < 5000; i++) {
		struct tpd_part_entry entry;

		ck_assert_int_eq(tpd_part_entry_read(part, i, &entry, NULL), TPD_OK);
		ck_assert_int_eq(tpd_part_payload_read(part, &entry, payload, NULL), TPD_OK);
		ck_assert(entry.payload_len == 0 || payload[entry.payload_len - 1] == (uint8_t)i);
	}
	tpd_part_close(part);
	free(payload);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("part");
	TCase *tests = tcase_create("part");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, round_trip);
	tcase_add_test(tests, the_bytes_are_the_formats);
	tcase_add_test(tests, absent_and_foreign);
	tcase_add_test(tests, every_byte_counts);
	tcase_add_loop_test(tests, one_field_changed, 0, (int)TPD_ARRAY_LEN(changes));
	tcase_add_test(tests, payloads_follow_one_another);
	tcase_add_test(tests, an_old_temporary_is_replaced);
	tcase_add_test(tests, given_up);
	tcase_add_test(tests, read_back);
	tcase_add_loop_test(tests, any_call_fails, 0, 2);
	tcase_add_test(tests, many_chunks);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
