/*
 * t_metrics.c - sets of metrics, of which less is better, and their records in a run's refs.
 */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "store_help.h"

#define SET(metrics, name, value) ck_assert_int_eq(tpd_metrics_set(metrics, name, strlen(name), value, &err), TPD_OK)

START_TEST(a_set_is_sorted_and_bounded)
{
	static const char *const unfit[] = {"", "a\nb", "\x7f", "\xc2\x85", "\xff", "a\xc3"};
	struct tpd_metrics metrics = {0};
	char name[TPD_METRIC_NAME_MAX + 2];

	SET(&metrics, "loss", 1);
	SET(&metrics, "eval_loss", 2);
	SET(&metrics, "lossy", 3);
	SET(&metrics, "los", 4);
	SET(&metrics, "loss", 5);
	SET(&metrics, "nan", NAN);
	SET(&metrics, "loss", INFINITY);
	for (size_t i = 0; i < TPD_ARRAY_LEN(unfit); i++)
		SET(&metrics, unfit[i], 1);
	ck_assert_int_eq(tpd_metrics_set(&metrics, "a\0b", 3, 1, &err), TPD_OK);
	memset(name, 'n', sizeof(name));
	ck_assert_int_eq(tpd_metrics_set(&metrics, name, TPD_METRIC_NAME_MAX + 1, 1, &err), TPD_OK);
	ck_assert_uint_eq(metrics.count, 4);
	ck_assert_str_eq(metrics.items[0].name, "eval_loss");
	ck_assert_str_eq(metrics.items[1].name, "los");
	ck_assert_str_eq(metrics.items[2].name, "loss");
	ck_assert_str_eq(metrics.items[3].name, "lossy");
	ck_assert(tpd_metrics_find(&metrics, "loss")->value == 5);
	ck_assert_ptr_null(tpd_metrics_find(&metrics, "lo"));
	ck_assert_ptr_null(tpd_metrics_find(&metrics, "losses"));
	ck_assert_int_eq(tpd_metrics_set(&metrics, name, TPD_METRIC_NAME_MAX, 1, &err), TPD_OK);
	ck_assert_uint_eq(metrics.count, 5);
	for (unsigned i = 0; i < 2 * TPD_METRICS_MAX; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		SET(&metrics, name, i);
	}
	ck_assert_uint_eq(metrics.count, TPD_METRICS_MAX);
	ck_assert_ptr_nonnull(tpd_metrics_find(&metrics, "loss")); /* the first stay */
	SET(&metrics, "loss", 6);
	ck_assert(tpd_metrics_find(&metrics, "loss")->value == 6);
	tpd_metrics_release(&metrics);
	ck_assert_ptr_null(tpd_metrics_find(&metrics, "loss"));
}
END_TEST

START_TEST(of_which_less_is_better)
{
	static const char *const lower[] = {"loss", "eval_loss", "valloss", "val/loss", "eval_Loss", "perplexity", "eval_ppl",
					    "test.WER", "cer", "val-rmse", "mse@10", "bpb", "error rate", "eval_nll", "loss_dev"};
	static const char *const higher[] = {"accuracy", "eval_f1", "bleu", "lossless", "answer", "terms", "merge", "learning_rate",
					     "recall@10", "", "_", "grad_norm", "errorless"};

	for (size_t i = 0; i < TPD_ARRAY_LEN(lower); i++)
		ck_assert_msg(tpd_metric_is_lower_better(lower[i]), "%s", lower[i]);
	for (size_t i = 0; i < TPD_ARRAY_LEN(higher); i++)
		ck_assert_msg(!tpd_metric_is_lower_better(higher[i]), "%s", higher[i]);
}
END_TEST

/* --- records --- */

static struct tpd_id id_of(uint8_t byte)
{
	struct tpd_id id;

	memset(id.bytes, byte, sizeof(id.bytes));
	return id;
}

static void add(struct tpd_run_lock *lock, uint8_t byte, const char *name, double value)
{
	struct tpd_metrics metrics = {0};
	struct tpd_id id = id_of(byte);

	SET(&metrics, name, value);
	ck_assert_msg(tpd_store_add_metrics(lock, &id, &metrics, &err) == TPD_OK, "%s", err.text);
	tpd_metrics_release(&metrics);
}

/* NAN: none */
static double told(struct tpd_store *store, uint8_t byte, const char *name)
{
	struct tpd_run_metrics metrics = {0};
	const struct tpd_metric *metric;
	struct tpd_id id = id_of(byte);
	double value;

	ck_assert_msg(tpd_store_metrics(store, RUN, &metrics, &err) == TPD_OK, "%s", err.text);
	metric = tpd_metrics_find(tpd_run_metrics_of(&metrics, &id), name);
	value = metric ? metric->value : NAN;
	tpd_run_metrics_release(&metrics);
	return value;
}

static size_t refs_length(void)
{
	struct tpd_buf refs = get(RUN_FILE);
	size_t len = refs.len;

	tpd_buf_release(&refs);
	return len;
}

START_TEST(the_last_record_holds)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_metrics metrics = {0};
	struct tpd_run_lock *lock;
	size_t len;

	ck_assert_int_eq(tpd_store_metrics(store, RUN, &metrics, &err), TPD_NOT_FOUND);
	lock = lock_run(store, RUN);
	ck_assert(isnan(told(store, 1, "loss")));
	add(lock, 1, "loss", 3.5);
	add(lock, 2, "loss", 2.5);
	add(lock, 1, "accuracy", 0.25);
	ck_assert(told(store, 1, "loss") == 3.5 && told(store, 2, "loss") == 2.5 && told(store, 1, "accuracy") == 0.25);
	ck_assert(isnan(told(store, 2, "accuracy")) && isnan(told(store, 3, "loss")));
	len = refs_length();
	add(lock, 1, "loss", 3.5); /* equal: not again */
	ck_assert_uint_eq(refs_length(), len);
	add(lock, 1, "loss", 1.5);
	ck_assert_uint_gt(refs_length(), len);
	ck_assert(told(store, 1, "loss") == 1.5 && told(store, 1, "accuracy") == 0.25);
	len = refs_length();
	add(lock, 1, "loss", 3.5); /* what it once was is news, too */
	ck_assert_uint_gt(refs_length(), len);
	ck_assert(told(store, 1, "loss") == 3.5);
	tpd_store_run_unlock(lock);
	lock = lock_run(store, RUN); /* nothing of this is torn, or a name */
	ck_assert(told(store, 1, "loss") == 3.5);
	tpd_store_run_unlock(lock);
	tpd_store_close(store);
}
END_TEST

/* Metrics alone do not make a name, nor take one away: what a crash left between the two is named as ever. */
START_TEST(metrics_name_nothing)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_run_lock *lock = lock_run(store, RUN);
	struct tpd_manifest m = {0};
	struct tpd_metrics set = {0};
	struct tpd_run_metrics metrics = {0};
	struct tpd_run run = {0};
	struct tpd_buf refs;
	uint32_t version = 0;
	size_t before;

	ck_assert_int_eq(make_unfinished(lock, RUN, 20, 1, &m), TPD_OK);
	SET(&set, "loss", 0.5);
	ck_assert_int_eq(tpd_store_add_metrics(lock, &m.id, &set, &err), TPD_OK);
	before = refs_length();
	ck_assert_int_eq(tpd_store_publish(lock, &m, &version, &err), TPD_OK);
	tpd_store_run_unlock(lock);
	refs = get(RUN_FILE);
	put(RUN_FILE, refs.data, before); /* as if it had died before the version record */
	tpd_buf_release(&refs);
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 0);
	tpd_run_release(&run);
	tpd_store_run_unlock(lock_run(store, RUN));
	ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
	ck_assert_uint_eq(run.count, 1);
	ck_assert(tpd_id_equal(&run.versions[0].id, &m.id));
	ck_assert_int_eq(tpd_store_metrics(store, RUN, &metrics, &err), TPD_OK);
	ck_assert(tpd_metrics_equal(tpd_run_metrics_of(&metrics, &m.id), &set));
	tpd_run_metrics_release(&metrics);
	tpd_run_release(&run);
	tpd_metrics_release(&set);
	tpd_manifest_release(&m);
	tpd_store_close(store);
}
END_TEST

static void put_metric(struct tpd_buf *body, const char *name, size_t len, double value)
{
	tpd_buf_varint(body, len);
	tpd_buf_put(body, name, len);
	tpd_buf_f64(body, value);
}

/* honest_refs() and one metric record with this body; what reading says of it */
static enum tpd_status judge(struct tpd_store *store, struct tpd_buf *body)
{
	struct tpd_run run = {0};
	struct tpd_buf refs = honest_refs();
	enum tpd_status status;

	put_record(&refs, 4, body->data, body->len);
	put(RUN_FILE, refs.data, refs.len);
	status = tpd_store_run_read(store, RUN, &run, &err);
	ck_assert(status != TPD_OK || run.count == 2);
	tpd_run_release(&run);
	tpd_buf_release(&refs);
	tpd_buf_release(body);
	return status;
}

START_TEST(malformed_records_are_corrupt)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_id id = id_of(0xa1);
	char name[TPD_METRIC_NAME_MAX + 1];
	struct tpd_buf body = {0};

	memset(name, 'n', sizeof(name));
#define BEGIN() tpd_buf_put(&body, id.bytes, sizeof(id.bytes))
	BEGIN();
	put_metric(&body, "loss", 4, 0.5);
	put_metric(&body, name, TPD_METRIC_NAME_MAX, -0.0);
	ck_assert_int_eq(judge(store, &body), TPD_OK);
	ck_assert(told(store, 0xa1, "loss") == 0.5);

	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT); /* empty */
	BEGIN();
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT); /* no metric */
	ck_assert_ptr_nonnull(strstr(err.text, "rebuild-catalog"));
	tpd_buf_put(&body, id.bytes, 31);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT);
	BEGIN();
	put_metric(&body, "loss", 4, 0.5);
	tpd_buf_u8(&body, 0);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT); /* something behind it */
	BEGIN();
	put_metric(&body, "loss", 4, NAN);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT);
	BEGIN();
	put_metric(&body, "loss", 4, -INFINITY);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT);
	BEGIN();
	put_metric(&body, "", 0, 1);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT);
	BEGIN();
	put_metric(&body, "a\033b", 3, 1);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT);
	BEGIN();
	put_metric(&body, name, sizeof(name), 1);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT); /* too long */
	BEGIN();
	tpd_buf_varint(&body, UINT64_MAX);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT); /* longer than all there is */
	BEGIN();
	for (unsigned i = 0; i <= TPD_METRICS_MAX; i++)
		put_metric(&body, "n", 1, i);
	ck_assert_int_eq(judge(store, &body), TPD_CORRUPT); /* too many */
	tpd_store_close(store);
}
END_TEST

/* Every cut of the last record is a crash's, every flipped bit in front of a valid one damage; nothing else is read. */
START_TEST(torn_and_damaged)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_id id = id_of(0xa1);
	struct tpd_buf refs = honest_refs(), body = {0};
	size_t begins = refs.len, ends;

	BEGIN();
	put_metric(&body, "loss", 4, 0.5);
	put_metric(&body, "bleu", 4, 31);
	put_record(&refs, 4, body.data, body.len);
	ends = refs.len;
	tpd_buf_release(&body);
	for (size_t len = begins; len < ends; len++) {
		put(RUN_FILE, refs.data, len);
		ck_assert(isnan(told(store, 0xa1, "loss")) && isnan(told(store, 0xa1, "bleu")));
	}
	put(RUN_FILE, refs.data, ends - 1);
	tpd_store_run_unlock(lock_run(store, RUN));
	ck_assert_uint_eq(refs_length(), begins);
	put_version(&refs, 30, 1, 0xa3);
	for (size_t i = begins; i < ends; i++) {
		struct tpd_run run = {0};
		bool repaired = false;

		refs.data[i] ^= 0x20;
		put(RUN_FILE, refs.data, refs.len);
		refs.data[i] ^= 0x20;
		ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_CORRUPT);
		ck_assert_int_eq(tpd_store_run_repair(store, RUN, 0, &repaired, &err), TPD_OK);
		ck_assert_int_eq(tpd_store_run_read(store, RUN, &run, &err), TPD_OK);
		ck_assert_uint_eq(run.count, 3);
		ck_assert(isnan(told(store, 0xa1, "loss")));
		tpd_run_release(&run);
	}
	tpd_buf_release(&refs);
	tpd_store_close(store);
}
END_TEST

START_TEST(a_repair_keeps_them)
{
	struct tpd_store *store = open_store(TPD_STORE_CREATE);
	struct tpd_id id = id_of(0xa1);
	struct tpd_buf refs = {0}, body = {0};
	bool repaired = false;
	size_t hit;

	put_run(&refs, RUN);
	hit = refs.len;
	put_version(&refs, 10, 1, 0xa1);
	BEGIN();
	put_metric(&body, "loss", 4, 0.5);
	put_record(&refs, 4, body.data, body.len);
	put_run(&refs, "another"); /* behind another run's record, too: no manifest knows them */
	put_version(&refs, 20, 1, 0xa2);
	tpd_buf_release(&body);
	BEGIN();
	put_metric(&body, "loss", 4, 0.25);
	put_record(&refs, 4, body.data, body.len);
	tpd_buf_release(&body);
	put_record(&refs, 4, "malformed", 9);
	refs.data[hit + 9] ^= 1;
	put(RUN_FILE, refs.data, refs.len);
	ck_assert_int_eq(tpd_store_run_repair(store, RUN, 0, &repaired, &err), TPD_OK);
	ck_assert(repaired);
	ck_assert(told(store, 0xa1, "loss") == 0.25);
	tpd_buf_release(&refs);
	refs = get(RUN_FILE);
	ck_assert_uint_eq(refs.len, first_record(&refs) + 2 * (4 + 1 + 32 + 5 + 8 + 8));
	tpd_buf_release(&refs);
	tpd_store_close(store);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("metrics");
	TCase *tests = tcase_create("metrics");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_checked_fixture(tests, set_up, tear_down);
	tcase_add_test(tests, a_set_is_sorted_and_bounded);
	tcase_add_test(tests, of_which_less_is_better);
	tcase_add_test(tests, the_last_record_holds);
	tcase_add_test(tests, metrics_name_nothing);
	tcase_add_test(tests, malformed_records_are_corrupt);
	tcase_add_test(tests, torn_and_damaged);
	tcase_add_test(tests, a_repair_keeps_them);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
