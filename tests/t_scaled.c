/*
 * t_scaled.c - all forms of the kernels of `scaled` do the same: steps and symbols, what the encoder asks of a piece, and verdicts, on honest input and
 * on anything else. Whole payloads are t_second_decoder's and t_codec_corrupt's.
 */
#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "codec/fields.h"
#include "codec/kernels.h"
#include "codec/scaled.h"
#include "kernel_help.h"
#include "random_bits.h"

static enum tpd_dtype type_of(int round)
{
	return round % 2 ? TPD_DTYPE_F32 : TPD_DTYPE_BF16;
}

static void check_scaled(enum tpd_dtype dtype)
{
	const size_t width = tpd_dtype_width(dtype), n = rnd(rnd(2) ? 40 : 3000), lanes = (n + TPD_LANES - 1) / TPD_LANES * TPD_LANES;
	float *v1 = memory(4 * n), *v2 = memory(4 * n);
	int16_t *scale = memory(2 * n), *first_scale = memory(2 * n);
	uint8_t *x = memory(n * width), *p = memory(n * width), *q = memory(n * width), *first_q = memory(n * width), *columns = memory(n);
	uint8_t *steps = memory(n), *classes = memory(n), *first_steps = memory(n), *symbols = memory(n), *first_symbols = memory(n);
	uint8_t *bits = memory(lanes), *first_bits = memory(lanes), *back = memory(n * width);
	uint32_t *values = memory(4 * lanes), *first_values = memory(4 * lanes);
	const int base = (int)rnd(3000) - 500;

	for (size_t i = 0; i < n; i++) {
		uint32_t any = (uint32_t)rnd(1u << 31) << 1, near;

		v1[i] = (float)rnd(1000) * 1e-9f;
		v2[i] = v1[i] * (float)(rnd(200) + 900) / 1000;
		if (rnd(30) == 0)
			memcpy(rnd(2) ? &v1[i] : &v2[i], &any, 4);
		columns[i] = (uint8_t)rnd(256);
		any = rnd(20) ? any >> 4 | (uint32_t)rnd(2) << 31 : any;
		near = rnd(4) ? any ^ (uint32_t)rnd(1u << rnd(24)) : (uint32_t)rnd(1u << 31);
		memcpy(x + i * width, (uint8_t *)&any + 4 - width, width);
		memcpy(p + i * width, (uint8_t *)&near + 4 - width, width);
	}
	for (size_t f = 0; f < form_count; f++) {
		uint8_t *stream, *made = memory(4 * lanes + TPD_FIELDS_SLACK), *end = made + 4 * lanes + TPD_FIELDS_SLACK;
		struct tpd_fields_in in;

		forms[f]->scaled_scale((const uint8_t *)v2, (const uint8_t *)v1, 0.97f, n, scale);
		forms[f]->scaled_predict(dtype, p, 0.9f, n, q);
		forms[f]->scaled_steps(dtype, base, scale, columns, n, steps, classes);
		for (size_t i = 0; i < n; i += 7)
			steps[i] = 0;
		memset(bits, 0, lanes);
		forms[f]->scaled_encode(dtype, steps, x, q, n, symbols, values, bits);
		if (f == 0) {
			memcpy(first_scale, scale, 2 * n);
			memcpy(first_q, q, n * width);
			memcpy(first_steps, steps, n);
			memcpy(first_symbols, symbols, n);
			memcpy(first_bits, bits, lanes);
			memcpy(first_values, values, 4 * lanes);
		}
		ck_assert_mem_eq(scale, first_scale, 2 * n);
		ck_assert_mem_eq(q, first_q, n * width);
		ck_assert_mem_eq(steps, first_steps, n);
		ck_assert_mem_eq(symbols, first_symbols, n);
		ck_assert_mem_eq(bits, first_bits, lanes);
		ck_assert_mem_eq(values, first_values, 4 * lanes);
		stream = forms[f]->fields_pack(values, bits, lanes / TPD_LANES, end);
		tpd_fields_open(&in, stream + 4, (size_t)(end - stream) - 4);
		ck_assert(forms[f]->scaled_decode(dtype, steps, q, symbols, n, back, &in) && tpd_fields_done(&in));
		ck_assert_mem_eq(back, x, n * width);
		free(made);
	}
	free(v1);
	free(v2);
	free(scale);
	free(first_scale);
	free(x);
	free(p);
	free(q);
	free(first_q);
	free(columns);
	free(steps);
	free(classes);
	free(first_steps);
	free(symbols);
	free(first_symbols);
	free(bits);
	free(first_bits);
	free(back);
	free(values);
	free(first_values);
}

/* What an encoder asks of a piece: the same answers from all forms. */
static void check_looks(enum tpd_dtype dtype)
{
	const size_t width = tpd_dtype_width(dtype), n = 1 + rnd(rnd(2) ? 40 : 3000);
	float *v2 = memory(4 * n), *quotients = memory(4 * n), *other_quotients = memory(4 * n);
	uint8_t *x = memory(n * width), *p = memory(n * width);
	int16_t *scale = memory(2 * n), *logs = memory(2 * n), *other_logs = memory(2 * n);
	int32_t *columns = memory(8 * n), *other_columns = memory(8 * n), sum, other_sum;
	const float factor = 0.25f + (float)rnd(64) / 64;
	const int16_t *given = rnd(4) ? scale : NULL;
	double sums[2], other_sums[2];

	for (size_t i = 0; i < n; i++) {
		float value = ((float)rnd(2000) - 1000) * 1e-6f, near = value * factor;
		uint32_t bits;

		memcpy(&bits, &near, 4);
		bits += (uint32_t)rnd(rnd(2) ? 40 : 1u << 22) - 20;
		bits = rnd(30) ? bits : (uint32_t)rnd(UINT64_C(1) << 32);
		memcpy(p + i * width, (uint8_t *)&value + 4 - width, width);
		memcpy(x + i * width, (uint8_t *)&bits + 4 - width, width);
		v2[i] = (float)rnd(1000) * 1e-9f;
		if (rnd(30) == 0)
			memcpy(&v2[i], &bits, 4);
		scale[i] = (int16_t)rnd(1020);
	}
	for (size_t f = 0; f < form_count; f++) {
		const uint8_t *v = (const uint8_t *)v2;
		size_t far = forms[0]->scaled_far(dtype, x, p, factor, 16, n), count;

		ck_assert_uint_eq(forms[f]->scaled_far(dtype, x, p, factor, 16, n), far);
		forms[0]->scaled_quotients(dtype, x, p, n, quotients);
		forms[f]->scaled_quotients(dtype, x, p, n, other_quotients);
		ck_assert_mem_eq(quotients, other_quotients, 4 * n);
		forms[0]->scaled_learn(dtype, x, p, v, n, sums);
		forms[f]->scaled_learn(dtype, x, p, v, n, other_sums);
		for (unsigned k = 0; k < 2; k++)
			ck_assert(memcmp(&sums[k], &other_sums[k], 8) == 0 || (sums[k] != sums[k] && other_sums[k] != other_sums[k]));
		count = forms[0]->scaled_measure(dtype, x, p, factor, given, n, logs, &sum);
		ck_assert_uint_le(count, n);
		ck_assert_uint_eq(forms[f]->scaled_measure(dtype, x, p, factor, given, n, other_logs, &other_sum), count);
		ck_assert_mem_eq(logs, other_logs, 2 * n);
		ck_assert_int_eq(sum, other_sum);
		for (size_t i = 0; i < n; i++) {
			columns[i] = other_columns[i] = (int32_t)rnd(1u << 20);
			columns[n + i] = other_columns[n + i] = (int32_t)rnd(1u << 17);
			count -= logs[i] != INT16_MIN;
			sum -= logs[i] != INT16_MIN ? logs[i] : 0;
		}
		ck_assert(count == 0 && sum == 0);
		forms[0]->scaled_columns(logs, -17, n, columns, columns + n);
		forms[f]->scaled_columns(logs, -17, n, other_columns, other_columns + n);
		ck_assert_mem_eq(columns, other_columns, 8 * n);
	}
	free(v2);
	free(quotients);
	free(other_quotients);
	free(x);
	free(p);
	free(scale);
	free(logs);
	free(other_logs);
	free(columns);
	free(other_columns);
}

/* Symbols go to the stream of their class and come back, from all forms to all; a piece at a time. */
static void check_sorting(void)
{
	const size_t n = rnd(rnd(2) ? 70 : 3000), slack = TPD_SCALED_SLACK;
	uint8_t *classes = memory(n), *symbols = memory(n), *streams[2] = {memory(n + slack), memory(n + slack)}, *back = memory(n);
	size_t cut = n ? rnd(n) : 0, odd = 0;
	const unsigned share = (unsigned)rnd(9);

	for (size_t i = 0; i < n; i++) {
		classes[i] = rnd(8) < share;
		symbols[i] = (uint8_t)rnd(256);
		odd += classes[i];
	}
	for (size_t f = 0; f < form_count; f++) {
		size_t first = forms[f]->scaled_sort(classes, symbols, cut, streams[0], streams[1]), at[2] = {0, 0};

		ck_assert_uint_eq(forms[f]->scaled_sort(classes + cut, symbols + cut, n - cut, streams[0] + cut - first, streams[1] + first),
				  odd - first);
		for (size_t i = 0; i < n; i++)
			ck_assert_uint_eq(streams[classes[i]][at[classes[i]]++], symbols[i]);
		ck_assert_uint_eq(forms[f]->scaled_deal(classes, cut, streams[0], streams[1], back), first);
		ck_assert_uint_eq(forms[f]->scaled_deal(classes + cut, n - cut, streams[0] + cut - first, streams[1] + first, back + cut), odd - first);
		ck_assert(n == 0 || memcmp(back, symbols, n) == 0);
	}
	free(classes);
	free(symbols);
	free(streams[0]);
	free(streams[1]);
	free(back);
}

START_TEST(honest)
{
	for (int round = 0; round < 400; round++)
		check_scaled(type_of(round));
}
END_TEST

START_TEST(looks)
{
	for (int round = 0; round < 1000; round++)
		check_looks(type_of(round));
}
END_TEST

START_TEST(sorting)
{
	for (int round = 0; round < 1000; round++)
		check_sorting();
}
END_TEST

/* Any symbols and any words: the same verdict, and where that is good the same elements and queues. */
START_TEST(garbage)
{
	for (int round = 0; round < 20000; round++) {
		const enum tpd_dtype dtype = type_of(round);
		const size_t width = tpd_dtype_width(dtype), n = 1 + rnd(rnd(10) ? 70 : 2000), words = rnd(rnd(2) ? 30 : 2000);
		uint8_t *p = memory(n * width), *steps = memory(n), *symbols = memory(n), *first = memory(n * width), *other = memory(n * width);
		uint8_t *stream = memory(4 * words);
		const unsigned kind = (unsigned)rnd(3);
		struct tpd_fields_in in[2];
		bool valid;

		for (size_t i = 0; i < n * width; i++)
			p[i] = (uint8_t)next_random();
		for (size_t i = 0; i < n; i++) {
			steps[i] = (uint8_t)(rnd(5) ? (dtype == TPD_DTYPE_F32 ? 24 : 8) + rnd(kind ? 100 : 230) : 0);
			symbols[i] = (uint8_t)(kind == 1 ? 100 + rnd(20) : kind == 2 ? rnd(3) : rnd(256));
			if (rnd(3) == 0) /* near where the grid begins */
				p[(i + 1) * width - 1] = (uint8_t)(steps[i] >> 1);
		}
		for (size_t i = 0; i < 4 * words; i++)
			stream[i] = (uint8_t)next_random();
		tpd_fields_open(&in[0], stream, 4 * words);
		valid = forms[0]->scaled_decode(dtype, steps, p, symbols, n, first, &in[0]);
		for (size_t f = 1; f < form_count; f++) {
			tpd_fields_open(&in[1], stream, 4 * words);
			ck_assert_int_eq(forms[f]->scaled_decode(dtype, steps, p, symbols, n, other, &in[1]), valid);
			if (!valid)
				continue;
			ck_assert_mem_eq(first, other, n * width);
			ck_assert_mem_eq(in[0].acc, in[1].acc, sizeof(in[0].acc));
			ck_assert_mem_eq(in[0].bits, in[1].bits, sizeof(in[0].bits));
			ck_assert_int_eq(tpd_fields_done(&in[0]), tpd_fields_done(&in[1]));
		}
		free(p);
		free(steps);
		free(symbols);
		free(first);
		free(other);
		free(stream);
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("scaled");
	TCase *tests = tcase_create("scaled");
	SRunner *runner = srunner_create(suite);
	int failed;

	find_forms();
	suite_add_tcase(suite, tests);
	tcase_set_timeout(tests, 240);
	tcase_add_test(tests, honest);
	tcase_add_test(tests, looks);
	tcase_add_test(tests, sorting);
	tcase_add_test(tests, garbage);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
