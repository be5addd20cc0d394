/*
 * t_daemon.c - the daemon in a process of its own: commands, what waits, reloading, the end. (tests/sh/daemon.sh has the storing of whole
 * runs.)
 */
#include "base/tpd.h"

#include <errno.h>
#include <fcntl.h>

#include "archive/archive.h"
#include "base/json.h"
#include "daemon_help.h"

START_TEST(stores_and_tells)
{
	char *reply;
	struct tpd_json js;
	enum tpd_json_kind kind;
	struct stat st;

	start();
	await("\"state\":\"idle\"");
	ck_assert_int_eq(stat(scratch("run/c.sock"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 0777, 0660);
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	await("\"done\":1,\"missed\":0");
	mkdir(scratch("a/sub"), 0755);
	checkpoint_make(scratch("a/sub/checkpoint-20"), 20, 1);
	await("\"done\":2,\"missed\":0");
	await("\"runs\":2,\"checkpoints\":2,\"unfinished\":0"); /* what the last look saw, which may still be the one before */
	reply = ask("{\"command\":\"status\"}");
	ck_assert_ptr_nonnull(strstr(reply, "{\"ok\":true,\"pid\":"));
	ck_assert_ptr_nonnull(strstr(reply, "\"run\":\"a/sub\",\"step\":20,\"version\":1"));
	js = tpd_json_make(reply, strlen(reply));
	while ((kind = tpd_json_next(&js)) != TPD_JSON_END)
		ck_assert_int_ne(kind, TPD_JSON_ERROR);
	free(reply);
	ck_assert_int_eq(stop(SIGTERM), 0);
	ck_assert(!file_exists(scratch("run/c.sock")));
	/* once more: everything is known */
	start();
	await("\"state\":\"idle\"");
	await("\"runs\":2,\"checkpoints\":2,\"unfinished\":0");
	await("\"done\":0,\"missed\":0");
	ck_assert_int_eq(stop(SIGINT), 0);
}
END_TEST

START_TEST(commands)
{
	start();
	await("\"state\":\"idle\"");
	expect_reply("{\"command\":\"pause\"}", "{\"ok\":true,\"state\":\"paused\"}");
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	await("\"queued\":1");
	await("\"held\":1");
	expect_reply("{\"command\":\"scan\"}", "{\"ok\":true}");
	await("\"state\":\"paused\"");
	await("\"done\":0,\"missed\":0");
	free(ask("{\"x\":[1,{}],\"command\":\"resume\"}"));
	await("\"done\":1,\"missed\":0");
	await("\"state\":\"idle\"");
	expect_reply(
		"{\"command\":\"dance\"}",
		"{\"ok\":false,\"error\":\"there is no command 'dance'; there are status, pause, resume, retry and scan\","
		"\"status\":\"usage\"}");
	expect_reply(
		"{}",
		"{\"ok\":false,\"error\":\"a request is a JSON object with a \\\"command\\\"\",\"status\":\"usage\"}");
	expect_reply(
		"nonsense",
		"{\"ok\":false,\"error\":\"a request is a JSON object with a \\\"command\\\"\",\"status\":\"usage\"}");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

/*
 * A job that fails waits longer and longer, and is told of with its reason; on request it is tried at once. Six times here: without being
 * asked for, the sixth would come after two minutes and a half.
 */
START_TEST(failures_are_tried_again)
{
	char wanted[64], *reply;

	start();
	await("\"state\":\"idle\"");
	await("\"retries\":[]");
	expect_reply("{\"command\":\"retry\"}", "{\"ok\":true,\"retried\":0,\"state\":\"idle\"}");
	ck_assert_int_eq(rename(scratch("store/ingest"), scratch("store/away")), 0);
	file_write(scratch("store/ingest"), "x", 1);
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	for (int tries = 1; tries <= 6; tries++) {
		snprintf(wanted, sizeof wanted, "\"tries\":%d,\"next_try\":1", tries); /* a time, in this century */
		await(wanted);
		reply = ask("{\"command\":\"status\"}");
		ck_assert_ptr_nonnull(strstr(reply, "\"retries\":[{\"run\":\"a\",\"step\":10,\"path\":\""));
		ck_assert_ptr_nonnull(strstr(reply, "\"error\":\"cannot "));
		free(reply);
		if (tries == 6) {
			unlink(scratch("store/ingest"));
			ck_assert_int_eq(rename(scratch("store/away"), scratch("store/ingest")), 0);
		}
		reply = ask("{\"command\":\"retry\"}");
		ck_assert_msg(strstr(reply, "\"ok\":true,\"retried\":") != NULL, "%s", reply);
		free(reply);
	}
	await("\"done\":1,\"missed\":0");
	await("\"retries\":[]");
	await("\"last_error\":null");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

START_TEST(paused_jobs_survive)
{
	start();
	await("\"state\":\"idle\"");
	free(ask("{\"command\":\"pause\"}"));
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	checkpoint_make(scratch("a/checkpoint-20"), 20, 1);
	await("\"queued\":2");
	ck_assert_int_eq(stop(SIGKILL), 1000 + SIGKILL);
	/* one is deleted while nobody is there: missed; the other is stored */
	remove(scratch("a/checkpoint-10/model.safetensors"));
	remove(scratch("a/checkpoint-10/optimizer.pt"));
	remove(scratch("a/checkpoint-10/trainer_state.json"));
	remove(scratch("a/checkpoint-10"));
	start();
	await("\"done\":1,\"missed\":1");
	await("\"run\":\"a\",\"step\":20,\"version\":1");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

/* What is deleted and held is let go when the disk gets full: never less than we think is enough, here. */
START_TEST(low_space)
{
	char text[4096];

	snprintf(text, sizeof text,
		 "[store]\npath=%s\n[daemon]\ncontrol_socket=%s\nscan_interval=1h\nlow_space=100000T\n[watch:a]\npath=%s\nsettle=1s\n",
		 scratch("store"), scratch("run/c.sock"), scratch("a"));
	file_write(scratch("c.conf"), text, strlen(text));
	start();
	free(ask("{\"command\":\"pause\"}"));
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	checkpoint_make(scratch("a/checkpoint-20"), 20, 1);
	await("\"queued\":2,");
	await("\"held\":2,");
	/* All of it: what was left would be another checkpoint, after a while. */
	ck_assert_int_eq(unlink(scratch("a/checkpoint-10/optimizer.pt")), 0);
	ck_assert_int_eq(unlink(scratch("a/checkpoint-10/model.safetensors")), 0);
	ck_assert_int_eq(unlink(scratch("a/checkpoint-10/trainer_state.json")), 0);
	ck_assert_int_eq(rmdir(scratch("a/checkpoint-10")), 0);
	await("\"missed\":1,\"held\":1,"); /* and the one that is still there costs no room */
	await("\"queued\":1,");
	free(ask("{\"command\":\"resume\"}"));
	await("\"state\":\"idle\"");
	await("\"done\":1,");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

#define SAVE_BYTES 300000

/* Save number n: other bytes of the same length, written over what was there. */
static uint8_t *save(const char *path, unsigned n)
{
	uint8_t *bytes = malloc(SAVE_BYTES);
	uint64_t state = n + 1;

	ck_assert_ptr_nonnull(bytes);
	for (size_t i = 0; i < SAVE_BYTES; i++)
		bytes[i] = (uint8_t)(random_next(&state) >> 40);
	file_write(path, bytes, SAVE_BYTES);
	return bytes;
}

static void expect_version(struct tpd_archive *archive, const char *name, const char *file, unsigned n)
{
	struct tpd_archive_name which;
	struct tpd_err err = {0};

	ck_assert_msg(tpd_archive_resolve(archive, name, &which, &err) == TPD_OK, "%s", err.text);
	ck_assert_msg(tpd_archive_restore(archive, &which.id, scratch("back"), NULL, true, NULL, &err) == TPD_OK, "%s",
		      err.text);
	free(save(scratch("wanted"), n));
	ck_assert_msg(file_equal(scratch("wanted"), scratch("back/%s", file)), "%s", name);
}

static void write_spool_config(const char *lines)
{
	char text[4096];

	snprintf(text, sizeof text,
		 "[store]\npath=%s\n[daemon]\ncontrol_socket=%s\nscan_interval=1h\n%s[watch:a]\npath=%s\nsettle=100ms\n",
		 scratch("store"), scratch("run/c.sock"), lines, scratch("a"));
	file_write(scratch("c.conf"), text, strlen(text));
}

/* A trainer saves to one path, in place, while nothing is stored: each save that stood until it was captured is kept. */
START_TEST(written_over_while_it_waits)
{
	struct tpd_archive_options options = {.mode = TPD_ARCHIVE_READ};
	struct tpd_archive *archive = NULL;
	struct tpd_err err = {0};
	char text[64];

	write_spool_config("low_space=0\n");
	start();
	await("\"state\":\"idle\"");
	/* Of a directory of one step, only the second save is known to be in place. */
	mkdir(scratch("a/step_9"), 0755);
	free(save(scratch("a/step_9/state.bin"), 100));
	await("\"done\":1,\"missed\":0");
	free(ask("{\"command\":\"pause\"}"));
	for (unsigned n = 0; n < 4; n++) {
		free(save(scratch("a/model-7.pt"), n));
		free(save(scratch("a/step_9/state.bin"), 101 + n));
		snprintf(text, sizeof text, "\"queued\":%u,", 2 * (n + 1));
		await(text);
	}
	snprintf(text, sizeof text, "\"copied\":%u}", 8 * SAVE_BYTES);
	await(text);
	free(ask("{\"command\":\"resume\"}"));
	await("\"done\":9,\"missed\":0");
	await("\"copied\":0}"); /* they end with their jobs */
	ck_assert_int_eq(stop(SIGTERM), 0);
	options.store = scratch("store");
	ck_assert_msg(tpd_archive_open(&options, &archive, &err) == TPD_OK, "%s", err.text);
	for (unsigned n = 0; n < 4; n++) {
		snprintf(text, sizeof text, "a@7~%u", n + 1);
		expect_version(archive, text, "model-7.pt", n);
	}
	for (unsigned n = 0; n < 5; n++) {
		snprintf(text, sizeof text, "a@9~%u", n + 1);
		expect_version(archive, text, "state.bin", 100 + n);
	}
	tpd_archive_close(archive);
}
END_TEST

/* Bounds: beyond them a capture waits as before, and is lost when it is written over. kill -9 leaves nothing of a copy. */
START_TEST(copies_are_bounded)
{
	write_spool_config("low_space=0\nspool_copies=500K\n");
	start();
	await("\"state\":\"idle\"");
	free(ask("{\"command\":\"pause\"}"));
	free(save(scratch("a/model-1.pt"), 1));
	await("\"queued\":1,");
	free(save(scratch("a/model-2.pt"), 2));
	await("\"queued\":2,");
	await("\"copied\":300000}");
	ck_assert_int_eq(stop(SIGKILL), 1000 + SIGKILL);
	start();
	await("\"done\":2,\"missed\":0");
	await("\"copied\":0}");
	ck_assert_int_eq(stop(SIGTERM), 0);
	/* The store lies where it is watched: no copy may take the room that must be left there. */
	write_spool_config("low_space=100000T\n");
	start();
	await("\"state\":\"idle\"");
	free(ask("{\"command\":\"pause\"}"));
	free(save(scratch("a/model-3.pt"), 3));
	await("\"held\":1,");
	await("\"copied\":0}");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

/* When that room is wanted later on, copies go: those whose original is as it was cost nothing, the others are missed. */
START_TEST(copies_give_room_back)
{
	write_spool_config("low_space=0\n");
	start();
	await("\"state\":\"idle\"");
	free(ask("{\"command\":\"pause\"}"));
	free(save(scratch("a/model-1.pt"), 1));
	free(save(scratch("a/model-2.pt"), 2));
	await("\"queued\":2,");
	await("\"copied\":600000}");
	free(save(scratch("a/model-2.pt"), 3));
	await("\"queued\":3,");
	await("\"copied\":900000}");
	write_spool_config("low_space=100000T\n");
	kill(child, SIGHUP);
	await("\"missed\":1,\"held\":2,");
	await("\"copied\":0}");
	free(ask("{\"command\":\"resume\"}"));
	await("\"done\":2,\"missed\":1");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

START_TEST(reload)
{
	char extra[600];

	mkdir(scratch("b"), 0755);
	checkpoint_make(scratch("b/checkpoint-5"), 5, 3);
	start();
	await("\"state\":\"idle\"");
	write_config("[watch:b]\nfoo=bar\n"); /* stays as it was */
	kill(child, SIGHUP);
	await("[watch:b] foo: unknown key");
	await("\"last_error\":{");
	snprintf(extra, sizeof extra, "[watch:b]\npath=%s\nsettle=100ms\n", scratch("b"));
	write_config(extra);
	kill(child, SIGHUP);
	await("\"done\":1,\"missed\":0");
	await("\"name\":\"b\"");
	await("\"run\":\"b\",\"step\":5,\"version\":1");
	await("\"last_error\":null");
	write_config("");
	kill(child, SIGHUP);
	for (int waited = 0;; waited += 20) {
		char *reply = ask("{\"command\":\"status\"}");
		bool there = strstr(reply, "\"name\":\"b\"") != NULL;

		free(reply);
		if (!there)
			break;
		ck_assert_int_lt(waited, PATIENCE_MS);
		nap(20);
	}
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

/* A watched directory that is moved away is told of at once, and watched again when it is back, by itself. */
START_TEST(moved_away_and_back)
{
	char text[1024];

	snprintf(text, sizeof text, "[store]\npath=%s\n[daemon]\ncontrol_socket=%s\nscan_interval=500ms\n[watch:a]\npath=%s\nsettle=100ms\n",
		 scratch("store"), scratch("run/c.sock"), scratch("a"));
	file_write(scratch("c.conf"), text, strlen(text));
	start();
	checkpoint_make(scratch("a/checkpoint-10"), 10, 1);
	await("\"done\":1,\"missed\":0");
	await("\"missing_since\":null");
	ck_assert_int_eq(rename(scratch("a"), scratch("elsewhere")), 0);
	await("\"missing_since\":1"); /* a time, in this century */
	await("\"checkpoints\":0,");
	checkpoint_make(scratch("elsewhere/checkpoint-20"), 20, 2);
	ck_assert_int_eq(rename(scratch("elsewhere"), scratch("a")), 0);
	await("\"missing_since\":null");
	await("\"done\":2,\"missed\":0");
	checkpoint_make(scratch("a/checkpoint-30"), 30, 3);
	await("\"done\":3,\"missed\":0");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

START_TEST(second_daemon)
{
	pid_t first;
	char text[1024];

	start();
	await("\"state\":\"idle\"");
	first = child;
	start();
	ck_assert_int_eq(stop(0), 6);
	/* another store, the same socket */
	snprintf(text, sizeof text, "[store]\npath=%s\n[daemon]\ncontrol_socket=%s\n", scratch("other"),
		 scratch("run/c.sock"));
	file_write(scratch("c.conf"), text, strlen(text));
	start();
	ck_assert_int_eq(stop(0), 6);
	child = first;
	await("\"state\":\"idle\"");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

START_TEST(left_over_socket)
{
	start();
	await("\"state\":\"idle\"");
	ck_assert_int_eq(stop(SIGKILL), 1000 + SIGKILL);
	ck_assert(file_exists(scratch("run/c.sock")));
	start();
	await("\"state\":\"idle\"");
	ck_assert_int_eq(stop(SIGTERM), 0);
	/* what is no socket is not touched */
	file_write(scratch("run/c.sock"), "x", 1);
	start();
	ck_assert_int_eq(stop(0), 2);
	ck_assert(file_exists(scratch("run/c.sock")));
}
END_TEST

/* Between two looks, in a capture, in a job, in the opening of the store: the end is always clean. */
START_TEST(stopped_at_any_moment)
{
	for (int i = 1; i <= 3; i++) {
		char path[32];

		snprintf(path, sizeof path, "a/checkpoint-%d", i);
		checkpoint_make(scratch("%s", path), (uint64_t)i, 1);
	}
	start();
	free(ask("{\"command\":\"status\"}")); /* its signals are in place */
	nap(_i * 15);
	ck_assert_int_eq(stop(SIGTERM), 0);
	start();
	await("\"state\":\"idle\"");
	await("\"checkpoints\":3,\"unfinished\":0");
	await("\"queued\":0,\"running\":0,\"failed\":0");
	ck_assert_int_eq(stop(SIGTERM), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("daemon");
	TCase *tests = tcase_create("daemon");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, drop);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, stores_and_tells);
	tcase_add_test(tests, commands);
	tcase_add_test(tests, failures_are_tried_again);
	tcase_add_test(tests, paused_jobs_survive);
	tcase_add_test(tests, low_space);
	tcase_add_test(tests, written_over_while_it_waits);
	tcase_add_test(tests, copies_are_bounded);
	tcase_add_test(tests, copies_give_room_back);
	tcase_add_test(tests, reload);
	tcase_add_test(tests, moved_away_and_back);
	tcase_add_test(tests, second_daemon);
	tcase_add_test(tests, left_over_socket);
	tcase_add_loop_test(tests, stopped_at_any_moment, 0, 16);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
