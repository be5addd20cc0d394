/* t_state_name.c - names of optimizer state as the frameworks write them. */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "format/state_name.h"

static const struct {
	const char *name;
	enum tpd_state_kind kind;
	const char *of, *chunk;
	bool numbered;
} names[] = {
	/* HF Trainer's optimizer.pt, Lightning, DeepSpeed */
	{"state.12.exp_avg", TPD_STATE_EXP_AVG, "state.12", "", true},
	{"optimizer_states.0.state.7.exp_avg_sq", TPD_STATE_EXP_AVG_SQ, "optimizer_states.0.state.7", "", true},
	{"optimizer_state_dict.base_optimizer_state.state.0.exp_avg", TPD_STATE_EXP_AVG, "optimizer_state_dict.base_optimizer_state.state.0",
	 "", true},
	/* DCP, torchtitan */
	{"optimizer.state.layers.0.attention.wq.weight.exp_avg", TPD_STATE_EXP_AVG, "optimizer.state.layers.0.attention.wq.weight", "", false},
	{"optim.layers.0.weight.max_exp_avg_sq[128,0]", TPD_STATE_MAX_EXP_AVG_SQ, "optim.layers.0.weight", "[128,0]", false},
	{"optim.state.3.momentum_buffer[5]", TPD_STATE_MOMENTUM, "optim.state.3", "[5]", true},
	/* megatron-core */
	{"optimizer.state.exp_avg_sq.decoder.layers.0.weight", TPD_STATE_EXP_AVG_SQ, "decoder.layers.0.weight", "", false},
	{"optimizer.state.exp_avg.decoder.layers.0[2,0]", TPD_STATE_EXP_AVG, "decoder.layers.0", "[2,0]", true},
	{"exp_avg", TPD_STATE_EXP_AVG, "", "", false},
	{"exp_avg.w", TPD_STATE_EXP_AVG, "w", "", false},
	/* the last key counts */
	{"exp_avg.layers.exp_avg_sq", TPD_STATE_EXP_AVG_SQ, "exp_avg.layers", "", false},
	/* none */
	{"model.layers.0.weight", TPD_STATE_NONE, "model.layers.0.weight", "", false},
	{"model.layers.0.weight[128,0]", TPD_STATE_NONE, "model.layers.0.weight", "[128,0]", false},
	{"state.12.step", TPD_STATE_NONE, "state.12.step", "", false},
	{"exp_avg_pool.weight", TPD_STATE_NONE, "exp_avg_pool.weight", "", false},
	{"my_exp_avg", TPD_STATE_NONE, "my_exp_avg", "", false},
	{"exp_av", TPD_STATE_NONE, "exp_av", "", false},
	{"", TPD_STATE_NONE, "", "", false},
	/* what only looks like a chunk */
	{"a[]", TPD_STATE_NONE, "a[]", "", false},
	{"a]", TPD_STATE_NONE, "a]", "", false},
	{"a[x]", TPD_STATE_NONE, "a[x]", "", false},
	{"[1]", TPD_STATE_NONE, "", "[1]", false},
	/* what only looks like a number */
	{"state.x1.exp_avg", TPD_STATE_EXP_AVG, "state.x1", "", false},
	{"state.1234567890.exp_avg", TPD_STATE_EXP_AVG, "state.1234567890", "", false},
	{"4.exp_avg", TPD_STATE_EXP_AVG, "4", "", true},
	{".exp_avg", TPD_STATE_EXP_AVG, "", "", false},
	{"exp_avg.", TPD_STATE_EXP_AVG, "", "", false},
	{"..exp_avg..", TPD_STATE_EXP_AVG, ".", "", false},
};

START_TEST(as_frameworks_write_them)
{
	struct tpd_state_name out;

	tpd_state_name(names[_i].name, &out);
	ck_assert_msg(out.kind == names[_i].kind, "%s", names[_i].name);
	ck_assert_msg(out.length == strlen(names[_i].of) && memcmp(out.of, names[_i].of, out.length) == 0, "%s: of '%.*s'", names[_i].name,
		      (int)out.length, out.of);
	ck_assert_msg(out.chunk_length == strlen(names[_i].chunk) && memcmp(out.chunk, names[_i].chunk, out.chunk_length) == 0, "%s",
		      names[_i].name);
	ck_assert_msg(out.numbered == names[_i].numbered, "%s", names[_i].name);
}
END_TEST

START_TEST(kinds_have_names)
{
	ck_assert_str_eq(tpd_state_kind_name(TPD_STATE_EXP_AVG), "exp_avg");
	ck_assert_str_eq(tpd_state_kind_name(TPD_STATE_MASTER), "master");
	ck_assert_str_eq(tpd_state_kind_name(TPD_STATE_NONE), "?");
	ck_assert_str_eq(tpd_state_kind_name(TPD_STATE_KINDS), "?");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("state_name");
	TCase *tests = tcase_create("state_name");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_loop_test(tests, as_frameworks_write_them, 0, TPD_ARRAY_LEN(names));
	tcase_add_test(tests, kinds_have_names);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
