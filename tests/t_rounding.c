/*
 * t_rounding.c - F32 to BF16 and F16, at every place where the answer changes: each value itself, the middle between it and the next
 * one, and the F32 on both sides of that middle. And back, every pattern.
 */
#include "base/tpd.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/rounding.h"

struct half {
	unsigned exponent_bits, mantissa_bits;
	uint16_t (*round)(uint32_t bits);
	uint32_t (*widen)(uint16_t bits);
};

static uint16_t round_bf16(uint32_t bits)
{
	return tpd_round_bf16(bits);
}

static uint16_t round_f16(uint32_t bits)
{
	return tpd_round_f16(bits);
}

static uint32_t widen_bf16(uint16_t bits)
{
	return tpd_widen_bf16(bits);
}

static uint32_t widen_f16(uint16_t bits)
{
	return tpd_widen_f16(bits);
}

static const struct half halves[] = {{8, 7, round_bf16, widen_bf16}, {5, 10, round_f16, widen_f16}};

/* The value of a pattern without sign, by what IEEE 754 says; that of the first infinite one is what would come next. */
static double value_of(const struct half *half, unsigned pattern)
{
	int bias = (1 << (half->exponent_bits - 1)) - 1, exponent = (int)(pattern >> half->mantissa_bits);
	double fraction = pattern & ((1u << half->mantissa_bits) - 1);

	if (exponent == 0)
		return ldexp(fraction, 1 - bias - (int)half->mantissa_bits);
	return ldexp(fraction + (1u << half->mantissa_bits), exponent - bias - (int)half->mantissa_bits);
}

static uint32_t bits_of(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

static void expect(const struct half *half, uint32_t bits, unsigned pattern)
{
	ck_assert_msg(half->round(bits) == pattern, "0x%08x: 0x%04x, not 0x%04x", bits, half->round(bits), pattern);
	ck_assert_uint_eq(half->round(bits | 0x80000000u), pattern | 0x8000u);
}

START_TEST(every_decision)
{
	const struct half *half = &halves[_i];
	unsigned infinite = ((1u << half->exponent_bits) - 1) << half->mantissa_bits;

	for (unsigned pattern = 0; pattern < infinite; pattern++) {
		double here = value_of(half, pattern), next = value_of(half, pattern + 1), middle = here + (next - here) / 2;
		float exact = (float)here, at = (float)middle;

		ck_assert(exact >= here && exact <= here && isfinite(at));
		expect(half, bits_of(exact), pattern);
		if (at < middle || at > middle) /* the smallest BF16 are F32's own denormals: there is nothing between them */
			continue;
		expect(half, bits_of(at), pattern + (pattern & 1));
		expect(half, bits_of(at) - 1, pattern);
		expect(half, bits_of(at) + 1, pattern + 1);
	}
	expect(half, 0x7f800000u, infinite);
	expect(half, 0x7f7fffffu, infinite);
}
END_TEST

START_TEST(nan_stays_nan)
{
	const struct half *half = &halves[_i];
	unsigned infinite = ((1u << half->exponent_bits) - 1) << half->mantissa_bits;

	for (uint32_t low = 1; low < 0x800000u; low = low * 2 + (low & 1)) {
		ck_assert_uint_gt(half->round(0x7f800000u | low), infinite);
		ck_assert_uint_lt(half->round(0x7f800000u | low), 0x8000u);
		ck_assert_uint_gt(half->round(0xff800000u | low), infinite | 0x8000u);
	}
}
END_TEST

/* The value that IEEE 754 gives it; of NaN sign and bits; in the memory where the other type was, and rounded again the same. */
START_TEST(widened)
{
	static uint8_t bytes[4 * 0x10000];
	const struct half *half = &halves[_i];
	const unsigned infinite = ((1u << half->exponent_bits) - 1) << half->mantissa_bits, shift = 23 - half->mantissa_bits;

	for (unsigned pattern = 0; pattern < 0x10000; pattern++) {
		const unsigned magnitude = pattern & 0x7fffu;
		const uint32_t sign = (pattern & 0x8000u) << 16, wide = half->widen((uint16_t)pattern);

		if (magnitude < infinite)
			ck_assert_uint_eq(wide, sign | bits_of((float)value_of(half, magnitude)));
		else
			ck_assert_uint_eq(wide, sign | 0x7f800000u | (magnitude - infinite) << shift);
		if (magnitude <= infinite)
			ck_assert_uint_eq(half->round(wide), pattern);
		memcpy(bytes + 2 * pattern, &(uint16_t){(uint16_t)pattern}, 2);
	}
	tpd_widen_in_place(bytes, 0x10000, half->mantissa_bits == 7);
	for (unsigned pattern = 0; pattern < 0x10000; pattern++) {
		uint32_t wide;

		memcpy(&wide, bytes + 4 * pattern, 4);
		ck_assert_uint_eq(wide, half->widen((uint16_t)pattern));
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rounding");
	TCase *tests = tcase_create("rounding");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, tests);
	tcase_add_loop_test(tests, every_decision, 0, TPD_ARRAY_LEN(halves));
	tcase_add_loop_test(tests, nan_stays_nan, 0, TPD_ARRAY_LEN(halves));
	tcase_add_loop_test(tests, widened, 0, TPD_ARRAY_LEN(halves));
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
