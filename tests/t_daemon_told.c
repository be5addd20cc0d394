/*
 * t_daemon_told.c - what the daemon says and to whom: of what it cannot store, or doubts, and to systemd.
 */
#include "base/tpd.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "archive/archive.h"
#include "daemon_help.h"

static int notify_fd = -1;

static enum tpd_status count_event(void *arg, int64_t time_ns TPD_UNUSED, const char *level TPD_UNUSED, const char *run TPD_UNUSED,
				   const char *text, struct tpd_err *err TPD_UNUSED)
{
	*(unsigned *)arg += strstr(text, "what is left of '") != NULL;
	return TPD_OK;
}

/* Stored all the same, but somebody should know. */
START_TEST(doubtful_ones_are_told_of)
{
	size_t len;
	uint8_t *log;

	start();
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	await("\"done\":1,\"missed\":0");
	checkpoint_make(scratch("other"), 30, 1);
	ck_assert_int_eq(rename(scratch("other/model.safetensors"), scratch("a/checkpoint-10/model.safetensors")), 0);
	await("\"done\":2,\"missed\":0");
	checkpoint_make(scratch("other"), 20, 1);
	ck_assert_int_eq(unlink(scratch("other/optimizer.pt")), 0);
	ck_assert_int_eq(rename(scratch("other"), scratch("a/checkpoint-20")), 0);
	await("\"done\":3,\"missed\":0");
	ck_assert_int_eq(stop(SIGTERM), 0);
	log = file_read(scratch("log"), &len);
	ck_assert(memmem(log, len, "a@10 is stored again as it came to rest, but may be of two saves", 64));
	ck_assert(memmem(log, len, "a@20~1 has no 'optimizer.pt', as a@10 has", 41));
	free(log);
}
END_TEST

/* A file is deleted of what is stored: neither now nor by the next process, which was not there, is the rest a new version. */
START_TEST(what_is_left_is_no_version)
{
	struct tpd_archive_options options = {.mode = TPD_ARCHIVE_READ};
	struct tpd_archive *archive = NULL;
	struct tpd_archive_name *names = NULL;
	struct tpd_err err = {0};
	unsigned events = 0;
	size_t count = 0;

	start();
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	await("\"done\":1,\"missed\":0");
	ck_assert_int_eq(unlink(scratch("a/checkpoint-10/optimizer.pt")), 0);
	ck_assert_int_eq(stop(SIGTERM), 0);
	start();
	await("\"done\":1,\"missed\":0");
	await("\"run\":\"a\",\"step\":10,\"version\":1");
	checkpoint_make(scratch("a/checkpoint-20"), 20, 1);
	await("\"done\":2,\"missed\":0");
	ck_assert_int_eq(stop(SIGTERM), 0);
	/* It is known from now on. */
	start();
	await("\"state\":\"idle\"");
	await("\"runs\":1,\"checkpoints\":2,\"unfinished\":0");
	await("\"done\":0,\"missed\":0");
	ck_assert_int_eq(stop(SIGTERM), 0);

	options.store = scratch("store");
	ck_assert_msg(tpd_archive_open(&options, &archive, &err) == TPD_OK, "%s", err.text);
	ck_assert_msg(tpd_archive_select(archive, "a", &names, &count, &err) == TPD_OK, "%s", err.text);
	ck_assert_uint_eq(count, 2);
	ck_assert_int_eq(tpd_catalog_events(tpd_archive_catalog(archive), 100, count_event, &events, &err), TPD_OK);
	ck_assert_uint_eq(events, 1);
	for (size_t i = 0; i < count; i++)
		ck_assert_msg(tpd_archive_verify(archive, &names[i].id, NULL, &err) == TPD_OK, "%s", err.text);
	free(names);
	tpd_archive_close(archive);
}
END_TEST

/* For another reason it is not tried again by itself, but on request, and when anything of it changes: a file goes away, for one. */
START_TEST(what_cannot_be_stored_waits_for_a_change)
{
	start();
	await("\"state\":\"idle\"");
	mkdir(scratch("a/checkpoint-10"), 0755);
	file_write(scratch("a/checkpoint-10/x\xff"), "x", 1);
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	await("\"failed\":1,\"retrying\":0,\"done\":0,\"missed\":0");
	await("\"state\":\"idle\"");
	expect_reply("{\"command\":\"retry\"}", "{\"ok\":true,\"retried\":1,\"state\":\"idle\"}");
	await("\"failed\":1,\"retrying\":0,\"done\":0,\"missed\":0");
	ck_assert_int_eq(unlink(scratch("a/checkpoint-10/x\xff")), 0);
	await("\"failed\":0,\"retrying\":0,\"done\":1,\"missed\":0");
	await("\"last_error\":null");
	/* It is gone, and so is what is said of it. */
	mkdir(scratch("a/checkpoint-20"), 0755);
	file_write(scratch("a/checkpoint-20/x\xff"), "x", 1);
	checkpoint_make(scratch("a/checkpoint-20"), 20, 1);
	await("\"failed\":1,\"retrying\":0,\"done\":1,\"missed\":0");
	await("\"last_error\":{");
	ck_assert_int_eq(rename(scratch("a/checkpoint-20"), scratch("elsewhere")), 0);
	await("\"failed\":0,\"retrying\":0,\"done\":1,\"missed\":0");
	await("\"last_error\":null");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

/* Read datagrams until one holds `text`. */
static void await_notice(const char *text)
{
	char buf[2048];

	for (int waited = 0; waited < PATIENCE_MS; waited += 20) {
		ssize_t n = recv(notify_fd, buf, sizeof buf - 1, MSG_DONTWAIT);

		if (n < 0) {
			ck_assert_int_eq(errno, EAGAIN);
			nap(20);
			continue;
		}
		buf[n] = 0;
		if (strstr(buf, text))
			return;
	}
	ck_abort_msg("no notice %s", text);
}

START_TEST(systemd_is_told)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	snprintf(address.sun_path, sizeof address.sun_path, "%s", scratch("notify"));
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(notify_fd, (struct sockaddr *)&address, sizeof address), 0);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	setenv("WATCHDOG_USEC", "400000", 1);
	start();
	await_notice("READY=1");
	await_notice("WATCHDOG=1");
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	await_notice("1 stored since the start");
	await_notice("WATCHDOG=1");
	kill(child, SIGTERM);
	await_notice("STOPPING=1");
	ck_assert_int_eq(stop(0), 0);
	/* what changes is told at once, whenever the next tick is */
	setenv("WATCHDOG_USEC", "4000000000", 1);
	start();
	await_notice("READY=1");
	await_notice("STATUS=idle");
	checkpoint_make(scratch("a/checkpoint-20"), 20, 1);
	await_notice("STATUS=storing a@20");
	await_notice("STATUS=idle, 0 queued, 1 stored since the start");
	ck_assert_int_eq(stop(SIGTERM), 0);
	close(notify_fd);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
}
END_TEST

static unsigned fed(int fd)
{
	char buf[1024];
	unsigned count = 0;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof buf - 1, MSG_DONTWAIT)) > 0) {
		buf[n] = 0;
		count += strstr(buf, "WATCHDOG=1") != NULL;
	}
	return count;
}

static void ignore(TPD_UNUSED void *arg)
{
}

/* A worker from which nothing is heard is let starve; one whose calls to the disk come back is not. */
START_TEST(watchdog_is_fed_by_signs_of_life)
{
	struct tpd_daemon *daemon = calloc(1, sizeof *daemon);
	struct tpd_ledger_options options = {.answers = &daemon->inbox, .wake = ignore};
	struct tpd_message *opened;
	struct tpd_err err = {0};
	struct stat st;
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
	ck_assert_int_eq(uv_loop_init(&daemon->loop), 0);
	tpd_io_count_init(&daemon->io, tpd_io_posix());
	tpd_mailbox_init(&daemon->inbox);
	options.archive = (struct tpd_archive_options){
		.io = &daemon->io.io, .store = scratch("store"), .mode = TPD_ARCHIVE_CREATE, .threads = 1};
	ck_assert_int_eq(tpd_ledger_start(&options, &daemon->ledger, &err), TPD_OK);
	opened = tpd_mailbox_take(&daemon->inbox, -1);
	ck_assert_int_eq(((struct tpd_ledger_call *)opened)->status, TPD_OK);
	tpd_ledger_call_free((struct tpd_ledger_call *)opened);
	ck_assert_uint_gt(tpd_io_count_calls(&daemon->io), 0);

	daemon->notify = (struct tpd_notify){.fd = ends[0], .watchdog_ms = 30};
	daemon->ready = daemon->working = true;
	tpd_report_tick(daemon);
	ck_assert_uint_eq(fed(ends[1]), 1);
	nap(60);
	uv_update_time(&daemon->loop);
	tpd_report_tick(daemon);
	ck_assert_uint_eq(fed(ends[1]), 0);
	ck_assert_int_eq(daemon->io.io.stat(&daemon->io.io, AT_FDCWD, "/", &st), 0);
	tpd_report_tick(daemon);
	ck_assert_uint_eq(fed(ends[1]), 1);
	nap(60);
	uv_update_time(&daemon->loop);
	daemon->working = false; /* nothing to do is no silence */
	tpd_report_tick(daemon);
	ck_assert_uint_eq(fed(ends[1]), 1);

	tpd_ledger_stop(daemon->ledger);
	tpd_mailbox_release(&daemon->inbox);
	ck_assert_int_eq(uv_loop_close(&daemon->loop), 0);
	close(ends[0]);
	close(ends[1]);
	free(daemon);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		doubtful_ones_are_told_of, what_is_left_is_no_version, what_cannot_be_stored_waits_for_a_change,
		systemd_is_told, watchdog_is_fed_by_signs_of_life,
	};

	return run_daemon_tests("daemon_told", tests, TPD_ARRAY_LEN(tests));
}
