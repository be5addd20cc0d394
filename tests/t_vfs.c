/*
 * t_vfs.c - our VFS beside sqlite's own: locks against one another, the order of syncs, files that cannot be written.
 *
 * "They" is sqlite's unix VFS, that of the sqlite3 shell, in a process of its own: its POSIX locks and our OFD locks
 * must exclude one another at every level, and two of our connections in one process as well.
 */
#include "base/tpd.h"

#include "catalog/vfs.h"

#include <sqlite3.h>

#include "catalog_help.h"

struct connection {
	struct tpd_vfs *vfs;
	sqlite3 *db;
};

static struct connection connect_with(const struct tpd_io *io, bool read_fallback)
{
	struct connection c = { 0 };

	ck_assert_int_eq(tpd_vfs_new(io, read_fallback, &c.vfs, NULL), TPD_OK);
	ck_assert_int_eq(sqlite3_open_v2(help_path, &c.db,
					 SQLITE_OPEN_READWRITE | (read_fallback ? 0 : SQLITE_OPEN_CREATE),
					 tpd_vfs_name(c.vfs)),
			 SQLITE_OK);
	sqlite3_extended_result_codes(c.db, 1);
	ck_assert_int_eq(sqlite3_exec(c.db, "PRAGMA temp_store = MEMORY", NULL, NULL, NULL), SQLITE_OK);
	return c;
}

static void disconnect(struct connection *c)
{
	ck_assert_int_eq(sqlite3_close(c->db), SQLITE_OK);
	tpd_vfs_free(c->vfs);
}

static int run(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int count(sqlite3 *db)
{
	sqlite3_stmt *stmt;
	int n = -1;

	if (sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_step(stmt) == SQLITE_ROW)
		n = sqlite3_column_int(stmt, 0);
	sqlite3_finalize(stmt);
	return n;
}

static void make_table(void)
{
	struct connection c = connect_with(tpd_io_posix(), false);

	ck_assert_int_eq(run(c.db, "CREATE TABLE t (x); INSERT INTO t VALUES (1)"), SQLITE_OK);
	disconnect(&c);
}

/* --- locks --- */

/* What an opener comes to while another stands where `held` brought it: reading, preparing, changing. */
static const struct {
	const char *held;          /* SQL that leaves its locks in place */
	int read, reserve, commit; /* codes of the other */
} ladder[] = {
	{ "BEGIN; SELECT * FROM t", SQLITE_OK, SQLITE_OK, SQLITE_BUSY },
	{ "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)", SQLITE_OK, SQLITE_BUSY, SQLITE_BUSY },
	{ "BEGIN EXCLUSIVE", SQLITE_BUSY, SQLITE_BUSY, SQLITE_BUSY },
};

static int try_ladder(sqlite3 *db, size_t i)
{
	if (run(db, "SELECT * FROM t") != ladder[i].read)
		return 1;
	if (run(db, "BEGIN IMMEDIATE") != ladder[i].reserve)
		return 2;
	run(db, "ROLLBACK");
	if (run(db, "INSERT INTO t VALUES (3)") != ladder[i].commit)
		return 3;
	return 0;
}

START_TEST(ours_against_ours)
{
	struct connection a, b;

	make_table();
	a = connect_with(tpd_io_posix(), false);
	b = connect_with(tpd_io_posix(), false);
	ck_assert_int_eq(run(a.db, ladder[_i].held), SQLITE_OK);
	ck_assert_int_eq(try_ladder(b.db, (size_t)_i), 0);
	ck_assert_int_eq(run(a.db, "ROLLBACK"), SQLITE_OK);
	ck_assert_int_eq(run(b.db, "INSERT INTO t VALUES (3)"), SQLITE_OK);
	ck_assert_int_eq(count(a.db), 2);
	disconnect(&a);
	disconnect(&b);
}
END_TEST

START_TEST(theirs_against_ours)
{
	struct connection a;
	int status;
	pid_t pid;

	make_table();
	a = connect_with(tpd_io_posix(), false);
	ck_assert_int_eq(run(a.db, ladder[_i].held), SQLITE_OK);
	pid = fork();
	if (pid == 0) {
		sqlite3 *db;

		if (sqlite3_open(help_path, &db) != SQLITE_OK)
			_exit(100);
		_exit(try_ladder(db, (size_t)_i));
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	disconnect(&a);
}
END_TEST

START_TEST(ours_against_theirs)
{
	int ready[2], done[2], status;
	struct connection b;
	char byte = 0;
	pid_t pid;

	make_table();
	ck_assert_int_eq(pipe(ready), 0);
	ck_assert_int_eq(pipe(done), 0);
	pid = fork();
	if (pid == 0) {
		sqlite3 *db;

		if (sqlite3_open(help_path, &db) != SQLITE_OK || run(db, ladder[_i].held) != SQLITE_OK)
			_exit(100);
		if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1)
			_exit(101);
		_exit(0);
	}
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	b = connect_with(tpd_io_posix(), false);
	ck_assert_int_eq(try_ladder(b.db, (size_t)_i), 0);
	ck_assert_int_eq(write(done[1], &byte, 1), 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(run(b.db, "INSERT INTO t VALUES (3)"), SQLITE_OK);
	disconnect(&b);
}
END_TEST

/* A commit that waits for a reader keeps new readers out, and comes through when the old one is gone. */
START_TEST(a_waiting_writer_keeps_readers_out)
{
	struct connection reader, writer, late;

	make_table();
	reader = connect_with(tpd_io_posix(), false);
	writer = connect_with(tpd_io_posix(), false);
	late = connect_with(tpd_io_posix(), false);
	ck_assert_int_eq(run(reader.db, "BEGIN; SELECT * FROM t"), SQLITE_OK);
	ck_assert_int_eq(run(writer.db, "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)"), SQLITE_OK);
	ck_assert_int_eq(count(late.db), 1);
	ck_assert_int_eq(run(writer.db, "COMMIT"), SQLITE_BUSY); /* now it holds PENDING */
	ck_assert_int_eq(run(late.db, "SELECT * FROM t"), SQLITE_BUSY);
	ck_assert_int_eq(count(reader.db), 1);
	ck_assert_int_eq(run(reader.db, "COMMIT"), SQLITE_OK);
	ck_assert_int_eq(run(writer.db, "COMMIT"), SQLITE_OK);
	ck_assert_int_eq(count(late.db), 2);
	disconnect(&reader);
	disconnect(&writer);
	disconnect(&late);
}
END_TEST

/* --- what is written, and in which order --- */

static struct {
	int database, journal, directory; /* descriptors */
	bool journal_synced, journal_durable;
	unsigned early, writes, opened;
} order;

static void watch_order(TPD_UNUSED struct help_io *io, const char *call, const char *path, int fd)
{
	bool is_journal = path && strstr(path, "-journal");

	if (strcmp(call, "create") == 0 || (strcmp(call, "open") == 0 && path)) {
		*(is_journal ? &order.journal : &order.database) = fd;
		order.opened++;
		if (is_journal)
			order.journal_synced = order.journal_durable = false;
	} else if (strcmp(call, "opendir") == 0 && path) {
		order.directory = fd;
	} else if (strcmp(call, "fsync") == 0) {
		order.journal_synced |= fd == order.journal;
		order.journal_durable |= order.journal_synced && fd == order.directory;
	} else if (strcmp(call, "pwrite") == 0 && fd == order.database) {
		order.writes++;
		order.early += !order.journal_durable;
	} else if (strcmp(call, "close") == 0) {
		if (fd == order.journal)
			order.journal = -1;
		if (fd == order.directory)
			order.directory = -1;
	}
}

START_TEST(journal_is_durable_before_the_database_changes)
{
	struct connection c;
	struct help_io io;

	make_table();
	help_io_init(&io);
	io.seen = watch_order;
	order.database = order.journal = order.directory = -1;
	c = connect_with(&io.table, false);
	ck_assert_int_eq(run(c.db, "INSERT INTO t VALUES (2)"), SQLITE_OK);
	ck_assert_int_eq(run(c.db, "UPDATE t SET x = x + 1"), SQLITE_OK);
	ck_assert_uint_ge(order.writes, 2);
	ck_assert_uint_eq(order.early, 0);
	ck_assert_int_ne(access(help_journal, F_OK), 0);
	disconnect(&c);
}
END_TEST

START_TEST(transfers_may_be_short)
{
	struct connection c;
	struct help_io io;
	sqlite3_file *file;
	sqlite3_int64 size;
	uint8_t *whole, page[1000];
	size_t len;

	help_io_init(&io);
	io.at_most = 100;
	c = connect_with(&io.table, false);
	ck_assert_int_eq(run(c.db, "CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(20000)), (2)"), SQLITE_OK);
	disconnect(&c);
	help_shell_says("PRAGMA integrity_check; SELECT length(x) FROM t", "ok\n20000\n1\n");
	/* What sqlite reads may be in memory that it had used for the same page before; so look at the file itself. */
	c = connect_with(&io.table, false);
	ck_assert_int_eq(sqlite3_file_control(c.db, "main", SQLITE_FCNTL_FILE_POINTER, &file), SQLITE_OK);
	ck_assert_int_eq(file->pMethods->xFileSize(file, &size), SQLITE_OK);
	ck_assert_int_eq(tpd_io_read_file(tpd_io_posix(), AT_FDCWD, help_path, 1 << 20, &whole, &len, NULL), TPD_OK);
	ck_assert_int_eq(size, (sqlite3_int64)len);
	memset(page, 0x55, sizeof page);
	ck_assert_int_eq(file->pMethods->xRead(file, page, sizeof page, 0), SQLITE_OK);
	ck_assert_mem_eq(page, whole, sizeof page);
	memset(page, 0x55, sizeof page);
	ck_assert_int_eq(file->pMethods->xRead(file, page, sizeof page, size - 150), SQLITE_IOERR_SHORT_READ);
	ck_assert_mem_eq(page, whole + len - 150, 150);
	for (size_t i = 150; i < sizeof page; i++)
		ck_assert_uint_eq(page[i], 0);
	free(whole);
	disconnect(&c);
}
END_TEST

/* A journal is a dead writer's only if nobody holds RESERVED: rolled back, a living writer's protects it no more. */
START_TEST(a_living_journal_is_left_alone)
{
	struct connection writer, reader;
	sqlite3_file *file;
	int reserved;

	make_table();
	writer = connect_with(tpd_io_posix(), false);
	reader = connect_with(tpd_io_posix(), false);
	ck_assert_int_eq(count(reader.db), 1);
	ck_assert_int_eq(sqlite3_file_control(reader.db, "main", SQLITE_FCNTL_FILE_POINTER, &file), SQLITE_OK);
	ck_assert_int_eq(file->pMethods->xCheckReservedLock(file, &reserved), SQLITE_OK);
	ck_assert_int_eq(reserved, 0);
	ck_assert_int_eq(run(writer.db, "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)"), SQLITE_OK);
	ck_assert_int_eq(file->pMethods->xCheckReservedLock(file, &reserved), SQLITE_OK);
	ck_assert_int_eq(reserved, 1);
	ck_assert_int_eq(access(help_journal, F_OK), 0);
	ck_assert_int_eq(count(reader.db), 1);
	ck_assert_int_eq(access(help_journal, F_OK), 0);
	help_shell_says("SELECT count(*) FROM t", "1\n");
	ck_assert_int_eq(access(help_journal, F_OK), 0);
	ck_assert_int_eq(run(writer.db, "COMMIT"), SQLITE_OK);
	ck_assert_int_ne(access(help_journal, F_OK), 0);
	disconnect(&writer);
	disconnect(&reader);
}
END_TEST

START_TEST(nothing_temporary_on_disk)
{
	static const char big[] =
		"CREATE TEMP TABLE big AS WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n "
		"WHERE i < 50000) SELECT i, hex(randomblob(100)) AS h FROM n";
	struct connection c;
	struct help_io io;

	make_table();
	help_io_init(&io);
	io.seen = watch_order;
	order.opened = 0;
	c = connect_with(&io.table, false);
	ck_assert_int_eq(run(c.db, big), SQLITE_OK);
	ck_assert_int_eq(run(c.db, "SELECT * FROM big ORDER BY h"), SQLITE_OK);
	ck_assert_uint_eq(order.opened, 1);
	ck_assert_int_eq(run(c.db, "PRAGMA temp_store = FILE"), SQLITE_OK);
	ck_assert_int_eq(run(c.db, big) & 0xff, SQLITE_CANTOPEN);
	disconnect(&c);
}
END_TEST

/* --- failures --- */

static bool fail_syncs;

static int flaky_fsync(const struct tpd_io *io, int fd)
{
	return fail_syncs ? -EIO : help_fsync(io, fd);
}

START_TEST(after_a_failed_sync_nothing_is_written)
{
	struct connection c;
	struct help_io io;

	make_table();
	help_io_init(&io);
	io.table.fsync = flaky_fsync;
	c = connect_with(&io.table, false);
	ck_assert_int_eq(run(c.db, "INSERT INTO t VALUES (2)"), SQLITE_OK);
	fail_syncs = true;
	ck_assert_int_eq(run(c.db, "INSERT INTO t VALUES (3)"), SQLITE_IOERR_FSYNC);
	ck_assert_int_eq(tpd_vfs_sys(c.vfs), EIO);
	fail_syncs = false; /* the next one would succeed, and mean nothing */
	tpd_vfs_forget(c.vfs);
	ck_assert_int_ne(run(c.db, "INSERT INTO t VALUES (4)"), SQLITE_OK);
	ck_assert_int_eq(tpd_vfs_sys(c.vfs), EIO);
	disconnect(&c);
	c = connect_with(tpd_io_posix(), false);
	ck_assert_int_eq(count(c.db), 2);
	ck_assert_int_eq(run(c.db, "INSERT INTO t VALUES (4)"), SQLITE_OK);
	disconnect(&c);
}
END_TEST

START_TEST(a_replaced_file_is_noticed)
{
	struct connection c;
	char aside[128];

	make_table();
	c = connect_with(tpd_io_posix(), false);
	ck_assert_int_eq(count(c.db), 1);
	snprintf(aside, sizeof aside, "%s/aside", help_root);
	ck_assert_int_eq(rename(help_path, aside), 0);
	ck_assert_int_eq(run(c.db, "INSERT INTO t VALUES (2)"), SQLITE_READONLY_DBMOVED);
	make_table();
	ck_assert_int_eq(run(c.db, "INSERT INTO t VALUES (2)"), SQLITE_READONLY_DBMOVED);
	ck_assert_int_eq(rename(aside, help_path), 0);
	ck_assert_int_eq(run(c.db, "INSERT INTO t VALUES (2)"), SQLITE_OK);
	disconnect(&c);
}
END_TEST

START_TEST(directories_and_absent_files_are_refused)
{
	struct tpd_vfs *vfs;
	sqlite3 *db;

	ck_assert_int_eq(tpd_vfs_new(tpd_io_posix(), true, &vfs, NULL), TPD_OK);
	ck_assert_int_eq(sqlite3_open_v2(help_root, &db, SQLITE_OPEN_READWRITE, tpd_vfs_name(vfs)), SQLITE_CANTOPEN);
	ck_assert_int_eq(tpd_vfs_sys(vfs), EISDIR);
	sqlite3_close(db);
	tpd_vfs_forget(vfs);
	ck_assert_int_eq(sqlite3_open_v2(help_path, &db, SQLITE_OPEN_READWRITE, tpd_vfs_name(vfs)), SQLITE_CANTOPEN);
	ck_assert_int_eq(tpd_vfs_sys(vfs), ENOENT);
	sqlite3_close(db);
	tpd_vfs_free(vfs);
}
END_TEST

/* The shell resolves a symbolic link and looks for the journal beside the file it leads to: so must we. */
START_TEST(the_journal_lies_beside_the_file_behind_a_link)
{
	char link[128], beside[160];
	struct connection c = { 0 };

	make_table();
	snprintf(link, sizeof link, "%s/link", help_root);
	snprintf(beside, sizeof beside, "%s-journal", link);
	ck_assert_int_eq(symlink(help_path, link), 0);
	ck_assert_int_eq(tpd_vfs_new(tpd_io_posix(), false, &c.vfs, NULL), TPD_OK);
	ck_assert_int_eq(sqlite3_open_v2(link, &c.db, SQLITE_OPEN_READWRITE, tpd_vfs_name(c.vfs)) & 0xff, SQLITE_OK);
	ck_assert_int_eq(run(c.db, "BEGIN IMMEDIATE; INSERT INTO t VALUES (2)"), SQLITE_OK);
	ck_assert_int_eq(access(help_journal, F_OK), 0);
	ck_assert_int_ne(access(beside, F_OK), 0);
	ck_assert_int_eq(run(c.db, "COMMIT"), SQLITE_OK);
	disconnect(&c);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vfs");
	TCase *tcase = tcase_create("all");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, help_set_up, help_tear_down);
	tcase_add_loop_test(tcase, ours_against_ours, 0, TPD_ARRAY_LEN(ladder));
	tcase_add_loop_test(tcase, theirs_against_ours, 0, TPD_ARRAY_LEN(ladder));
	tcase_add_loop_test(tcase, ours_against_theirs, 0, TPD_ARRAY_LEN(ladder));
	tcase_add_test(tcase, a_waiting_writer_keeps_readers_out);
	tcase_add_test(tcase, journal_is_durable_before_the_database_changes);
	tcase_add_test(tcase, transfers_may_be_short);
	tcase_add_test(tcase, a_living_journal_is_left_alone);
	tcase_add_test(tcase, nothing_temporary_on_disk);
	tcase_add_test(tcase, after_a_failed_sync_nothing_is_written);
	tcase_add_test(tcase, a_replaced_file_is_noticed);
	tcase_add_test(tcase, directories_and_absent_files_are_refused);
	tcase_add_test(tcase, the_journal_lies_beside_the_file_behind_a_link);
	tcase_set_timeout(tcase, 60);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
