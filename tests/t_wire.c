/*
 * t_wire.c - frames in any pieces, oversized ones, and calls to a server that answers, is silent, leaves, or is not
 * there.
 */
#include "base/tpd.h"

#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "files.h"
#include "wire/wire.h"

START_TEST(frames_in_pieces)
{
	static const char *const messages[] = {"{}", "", "{\"command\":\"status\"}"};
	struct tpd_buf stream = {0};

	for (size_t i = 0; i < TPD_ARRAY_LEN(messages); i++) {
		uint8_t *frame;
		size_t len;

		ck_assert_int_eq(tpd_wire_frame(messages[i], &frame, &len, NULL), TPD_OK);
		ck_assert_uint_eq(len, 4 + strlen(messages[i]));
		ck_assert_uint_eq(tpd_get_u32(frame), strlen(messages[i]));
		tpd_buf_put(&stream, frame, len);
		free(frame);
	}
	for (size_t piece = 1; piece <= stream.len; piece++) {
		struct tpd_wire_in in = {0};
		size_t taken = 0;

		for (size_t at = 0; at < stream.len; at += piece) {
			char *message = NULL;

			ck_assert_int_eq(tpd_wire_in_feed(&in, stream.data + at, TPD_MIN(piece, stream.len - at), NULL),
					 TPD_OK);
			while (tpd_wire_in_take(&in, &message, NULL) == TPD_OK && message) {
				ck_assert_str_eq(message, messages[taken++]);
				free(message);
			}
		}
		ck_assert_uint_eq(taken, TPD_ARRAY_LEN(messages));
		ck_assert_uint_eq(in.len, 0);
		tpd_wire_in_release(&in);
	}
	tpd_buf_release(&stream);
}
END_TEST

START_TEST(limits)
{
	struct tpd_wire_in in = {0};
	TPD_AUTO_FREE char *text = malloc(TPD_WIRE_MAX + 2);
	uint8_t head[4], *frame;
	char *message;
	size_t len;

	memset(text, 'x', TPD_WIRE_MAX + 1);
	text[TPD_WIRE_MAX + 1] = 0;
	ck_assert_int_eq(tpd_wire_frame(text, &frame, &len, NULL), TPD_LIMIT);
	text[TPD_WIRE_MAX] = 0;
	ck_assert_int_eq(tpd_wire_frame(text, &frame, &len, NULL), TPD_OK);
	ck_assert_int_eq(tpd_wire_in_feed(&in, frame, len, NULL), TPD_OK);
	ck_assert_int_eq(tpd_wire_in_take(&in, &message, NULL), TPD_OK);
	ck_assert_uint_eq(strlen(message), TPD_WIRE_MAX);
	free(message);
	free(frame);
	/* refused by its head, before any of it came; also when it hides behind another */
	tpd_put_u32(head, TPD_WIRE_MAX + 1);
	ck_assert_int_eq(tpd_wire_in_feed(&in, head, 4, NULL), TPD_LIMIT);
	tpd_wire_in_release(&in);
	ck_assert_int_eq(tpd_wire_in_feed(&in, "\2\0\0\0{}\xff\xff\xff\xff", 10, NULL), TPD_OK);
	ck_assert_int_eq(tpd_wire_in_take(&in, &message, NULL), TPD_OK);
	free(message);
	ck_assert_int_eq(tpd_wire_in_take(&in, &message, NULL), TPD_LIMIT);
	tpd_wire_in_release(&in);
}
END_TEST

/* --- calls --- */

struct server {
	int listener;
	const char *reply; /* in two pieces; NULL: none */
	bool leave;        /* close at once */
	char request[64];
	pthread_t thread;
};

static void *server_main(void *arg)
{
	struct server *server = arg;
	int fd = accept(server->listener, NULL, NULL);
	ssize_t n;

	if (server->leave) {
		close(fd);
		return NULL;
	}
	n = recv(fd, server->request, sizeof server->request - 1, 0);
	ck_assert_int_gt(n, 4);
	if (server->reply) {
		uint8_t *frame;
		size_t len;

		ck_assert_int_eq(tpd_wire_frame(server->reply, &frame, &len, NULL), TPD_OK);
		ck_assert_int_eq(send(fd, frame, 3, 0), 3);
		ck_assert_int_eq(send(fd, frame + 3, len - 3, 0), (ssize_t)(len - 3));
		free(frame);
	}
	n = recv(fd, server->request + 32, 1, 0); /* until the client goes */
	close(fd);
	return NULL;
}

static void serve(struct server *server, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	ck_assert_uint_lt(strlen(path), sizeof address.sun_path);
	strcpy(address.sun_path, path);
	server->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
	ck_assert_int_eq(listen(server->listener, 1), 0);
	ck_assert_int_eq(pthread_create(&server->thread, NULL, server_main, server), 0);
}

static void end(struct server *server)
{
	pthread_join(server->thread, NULL);
	close(server->listener);
}

START_TEST(call_and_reply)
{
	struct server server = {.reply = "{\"ok\":true}"};
	char *reply = NULL;

	serve(&server, scratch("s"));
	ck_assert_int_eq(tpd_wire_call(scratch("s"), "{\"command\":\"status\"}", 10000, &reply, NULL), TPD_OK);
	ck_assert_str_eq(reply, "{\"ok\":true}");
	ck_assert_mem_eq(server.request + 4, "{\"command\":\"status\"}", 20);
	free(reply);
	end(&server);
}
END_TEST

START_TEST(no_reply)
{
	struct server silent = {.reply = NULL}, leaving = {.leave = true};
	struct tpd_err err = {0};
	char *reply = NULL;

	serve(&silent, scratch("silent"));
	ck_assert_int_eq(tpd_wire_call(scratch("silent"), "{}", 50, &reply, &err), TPD_BUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "no answer in time"));
	end(&silent);
	serve(&leaving, scratch("leaving"));
	/* the peer's going shows as an end or as an error of the socket, as it happens */
	ck_assert_int_ne(tpd_wire_call(scratch("leaving"), "{}", 10000, &reply, &err), TPD_OK);
	ck_assert_int_ne(err.status, TPD_BUSY);
	end(&leaving);
	ck_assert_ptr_null(reply);
}
END_TEST

START_TEST(nobody_there)
{
	struct tpd_err err = {0};
	char *reply = NULL, path[300];

	ck_assert_int_eq(tpd_wire_call(scratch("none"), "{}", 1000, &reply, &err), TPD_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(err.text, scratch("none")));
	file_write(scratch("file"), "", 0);
	ck_assert_int_eq(tpd_wire_call(scratch("file"), "{}", 1000, &reply, NULL), TPD_NOT_FOUND);
	memset(path, 'x', sizeof path);
	path[0] = '/';
	path[200] = 0;
	ck_assert_int_eq(tpd_wire_call(path, "{}", 1000, &reply, NULL), TPD_USAGE);
	ck_assert_ptr_null(reply);
}
END_TEST

static void make(void)
{
	scratch_make();
}

int main(void)
{
	Suite *suite = suite_create("wire");
	TCase *tests = tcase_create("wire");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, make, scratch_remove);
	tcase_add_test(tests, frames_in_pieces);
	tcase_add_test(tests, limits);
	tcase_add_test(tests, call_and_reply);
	tcase_add_test(tests, no_reply);
	tcase_add_test(tests, nobody_there);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
