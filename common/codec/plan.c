/*
 * plan.c - how a tensor is to be coded: try every encoding on a sample of it and count bytes.
 *
 * The sample goes through the real encoders, so there is no model of their cost that could drift away from them, and
 * no clock decides.  Rejected: estimates from entropies (they forget headers, and small tensors are all header).
 * Of a large tensor every eighth stretch of the sample is tried first: what is far behind there is not tried on all of it. When only
 * `grid` is left then, it is that, with the T that was better there.
 *
 * BYTES with a reference is always `zstd-ref`: a sample cannot see that a file's contents moved by a few bytes,
 * which is the case that matters there.  A chunk that gains nothing becomes raw on its own.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/codec.h"
#include "codec/context.h"
#include "codec/integers.h"
#include "codec/internal.h"
#include "codec/low_rank.h"
#include "codec/rows.h"

#define GRID_BIAS_MIN 2u
#define GRID_BIAS_MAX 3u
#define HEAT_STEP 8u      /* a heat has every so-manieth stretch of the sample */
#define HEAT_PERCENT 125u /* of the best in it: what takes more is out ... */
#define HEAT_HEADER 256u  /* ... by more than this, since tables take as much there as in a chunk */
#define GUESS_PERCENT 98u /* a type's byte planes must cost less than this share of what plain bytes cost */
#define PREDICTED_PERCENT 97u /* of what `grid` takes: less than that it must be */
#define SCALED_PERCENT 99u    /* of what the best takes: likewise, without inputs */
#define FLOAT_SPREAD 64u  /* exponents; see looks_float() */

/* Not larger than raw.  Without sample->p, encodings that need a reference are left out. */
static enum tpd_status try_plan(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_sample *sample,
				uint64_t *out_bytes, struct tpd_err *err)
{
	struct tpd_chunk chunk = {.x = sample->x, .len = sample->len, .p = sample->p, .inputs = sample->inputs};
	size_t len = SIZE_MAX;
	enum tpd_status status;

	chunk.ref_len = sample->p ? sample->len : 0;
	status = tpd_encode_with(codec, plan, &chunk, 0, &len, err);
	if (status == TPD_OK)
		*out_bytes = TPD_MIN(len, sample->len);
	return status;
}

static bool worth_trying(enum tpd_encoding encoding, enum tpd_dtype dtype, bool with_reference)
{
	if (tpd_encoding_takes_inputs(encoding)) /* when the others are known */
		return false;
	if (encoding == TPD_ENCODING_RAW || encoding == TPD_ENCODING_COPY || !tpd_encoding_allows(encoding, dtype))
		return false;
	if (encoding == TPD_ENCODING_SPARSE && dtype == TPD_DTYPE_BYTES)
		return false;
	/* An F32 moves by many ulps: what its exponent says of that, T says as well. */
	if (encoding == TPD_ENCODING_CLASSES && tpd_dtype_width(dtype) != 2)
		return false;
	return with_reference || !tpd_encoding_needs_reference(encoding);
}

/* One of the things to choose from, and what it takes of a sample. */
struct candidate {
	enum tpd_encoding encoding;
	uint8_t grid_bias;
	bool nibbles;
	uint8_t form;
	uint64_t heat, bytes; /* of the heat, of all */
	bool is_out;
};

#define CANDIDATES_MAX (TPD_ENCODING_COUNT + 2 * (GRID_BIAS_MAX - GRID_BIAS_MIN) + 2 + 2 * TPD_INTEGERS_FORMS)

/* Of integers: each transform by its symbols, and as one frame. */
static size_t list_forms(enum tpd_encoding encoding, struct candidate *out)
{
	static const uint8_t forms[] = {0, TPD_INTEGERS_ZIGZAG, TPD_INTEGERS_BEFORE | TPD_INTEGERS_ZIGZAG};
	size_t count = 0;

	for (unsigned f = encoding == TPD_ENCODING_INTEGERS_REF; f < TPD_ARRAY_LEN(forms); f++)
		for (unsigned frame = 0; frame <= TPD_INTEGERS_FRAME; frame += TPD_INTEGERS_FRAME)
			out[count++] = (struct candidate){.encoding = encoding, .grid_bias = GRID_BIAS_MIN, .form = (uint8_t)(forms[f] | frame)};
	return count;
}

static size_t list_candidates(enum tpd_dtype dtype, bool with_reference, struct candidate out[CANDIDATES_MAX])
{
	size_t count = 0;

	for (unsigned encoding = 0; encoding < TPD_ENCODING_COUNT; encoding++) {
		bool has_t = encoding == TPD_ENCODING_GRID || encoding == TPD_ENCODING_CLASSES;
		unsigned last = has_t ? GRID_BIAS_MAX : GRID_BIAS_MIN;

		if (!worth_trying((enum tpd_encoding)encoding, dtype, with_reference))
			continue;
		if (encoding == TPD_ENCODING_INTEGERS || encoding == TPD_ENCODING_INTEGERS_REF) {
			count += list_forms((enum tpd_encoding)encoding, out + count);
			continue;
		}
		for (unsigned bias = GRID_BIAS_MIN; bias <= last; bias++)
			out[count++] = (struct candidate){.encoding = (enum tpd_encoding)encoding, .grid_bias = (uint8_t)bias};
		if ((encoding == TPD_ENCODING_ROWS || encoding == TPD_ENCODING_ROWS_REF) && tpd_rows_may_split(dtype)) {
			out[count] = out[count - 1];
			out[count++].nibbles = true;
		}
	}
	return count;
}

/* Every HEAT_STEP-th stretch, in the codec's memory. */
static enum tpd_status cut_heat(struct tpd_codec *codec, const struct tpd_sample *sample, struct tpd_sample *out, struct tpd_err *err)
{
	size_t stretches = sample->len / sample->stretch, count = (stretches + HEAT_STEP - 1) / HEAT_STEP, len = count * sample->stretch;
	enum tpd_status status = tpd_scratch_need(&codec->heat, 2 * len, err);

	if (status != TPD_OK)
		return status;
	*out = (struct tpd_sample){.x = codec->heat.data, .len = len, .stretch = sample->stretch};
	if (sample->p)
		out->p = codec->heat.data + len;
	for (size_t i = 0; i < count; i++) {
		memcpy(codec->heat.data + i * sample->stretch, sample->x + i * HEAT_STEP * sample->stretch, sample->stretch);
		if (sample->p)
			memcpy(codec->heat.data + len + i * sample->stretch, sample->p + i * HEAT_STEP * sample->stretch,
			       sample->stretch);
	}
	return TPD_OK;
}

static enum tpd_status run_heat(struct tpd_codec *codec, struct tpd_plan *plan, const struct tpd_sample *sample,
				struct candidate *candidates, size_t count, bool *out_decided, size_t *out_len, struct tpd_err *err)
{
	uint64_t best = UINT64_MAX;
	bool grids = true; /* all that is left */
	struct tpd_sample heat;
	enum tpd_status status = cut_heat(codec, sample, &heat, err);

	for (size_t i = 0; status == TPD_OK && i < count; i++) {
		plan->encoding = candidates[i].encoding;
		plan->grid_bias = candidates[i].grid_bias;
		plan->nibbles = candidates[i].nibbles;
		plan->form = candidates[i].form;
		status = try_plan(codec, plan, &heat, &candidates[i].heat, err);
		best = TPD_MIN(best, candidates[i].heat);
	}
	for (size_t i = 0; status == TPD_OK && i < count; i++) {
		candidates[i].is_out = candidates[i].heat * 100 > best * HEAT_PERCENT + HEAT_HEADER * 100;
		grids &= candidates[i].is_out || candidates[i].encoding == TPD_ENCODING_GRID;
		candidates[i].bytes = candidates[i].heat * sample->len / heat.len; /* as good as it is known of what is out */
	}
	for (size_t i = 0; status == TPD_OK && grids && i < count; i++)
		candidates[i].is_out = candidates[i].heat > best;
	*out_decided = grids;
	*out_len = heat.len;
	return status;
}

/*
 * The sample's part of what a whole chunk takes. 16-bit weights change in so few places that the tables of `classes` may be most of what a
 * sample takes: they are told from the rest by how much more the sample takes than its heat. Others have large payloads, or samples as large
 * as a chunk.
 */
static uint64_t part_of_chunk(const struct candidate *candidate, enum tpd_dtype dtype, size_t sample_len, size_t heat_len)
{
	const uint64_t chunk = tpd_chunk_bytes(dtype), growth = candidate->bytes - TPD_MIN(candidate->bytes, candidate->heat);

	if (heat_len == 0 || tpd_dtype_width(dtype) != 2 || sample_len >= chunk)
		return candidate->bytes;
	return (candidate->bytes + growth * (chunk - sample_len) / (sample_len - heat_len)) * sample_len / chunk;
}

/* What a tensor may be predicted with, if it is best coded so without; TPD_ENCODING_RAW: nothing. */
static enum tpd_encoding prediction_of(enum tpd_encoding best, enum tpd_dtype dtype)
{
	if (dtype == TPD_DTYPE_F32)
		return best == TPD_ENCODING_GRID ? TPD_ENCODING_PREDICTED : TPD_ENCODING_RAW;
	if (!tpd_encoding_allows(TPD_ENCODING_STEPPED, dtype))
		return TPD_ENCODING_RAW;
	return best == TPD_ENCODING_CLASSES || best == TPD_ENCODING_GRID || best == TPD_ENCODING_SPARSE ? TPD_ENCODING_STEPPED : TPD_ENCODING_RAW;
}

/* May low ranks be looked for? Rows are those of the tensor, and a chunk needs some of them; a sample does not show what they have in common. */
static bool may_have_low_rank(const struct tpd_plan *best, const struct tpd_sample *sample)
{
	return sample->try_low_rank && prediction_of(best->encoding, best->dtype) == TPD_ENCODING_PREDICTED && best->row >= TPD_LOW_RANK_ROW_MIN &&
	       best->row <= TPD_CHUNK_ELEMENTS / TPD_LOW_RANK_ROW_MIN &&
	       (sample->stretch < sample->len || sample->len / sizeof(float) / best->row >= TPD_LOW_RANK_ROW_MIN);
}

/* The i-th set of terms that is offered, without what is far below an ulp of 16-bit weights. */
static uint8_t offered_terms(const struct tpd_sample *sample, size_t i, enum tpd_dtype dtype)
{
	return dtype == TPD_DTYPE_F32 ? sample->term_sets[i] : sample->term_sets[i] & (uint8_t)~TPD_TERM_DECAY;
}

/* What each encoding takes at best, in the unit of part_of_chunk(); 0: it was not tried. */
struct tally {
	uint64_t part[TPD_ENCODING_COUNT];
};

static void note(struct tally *tally, enum tpd_encoding encoding, uint64_t part)
{
	uint64_t *known = &tally->part[encoding];

	part = TPD_MAX(part, (uint64_t)1);
	*known = *known == 0 ? part : TPD_MIN(*known, part);
}

/* As try_plan(), beside what takes other_bytes of the sample and the part that is known of its encoding. */
static enum tpd_status try_beside(struct tpd_codec *codec, const struct tpd_plan *plan, const struct tpd_sample *sample, struct tally *tally,
				  enum tpd_encoding other, uint64_t other_bytes, uint64_t *out_bytes, struct tpd_err *err)
{
	enum tpd_status status = try_plan(codec, plan, sample, out_bytes, err);
	const uint64_t both = tally->part[other] + *out_bytes;

	if (status == TPD_OK && *out_bytes < sample->len)
		note(tally, plan->encoding, both - TPD_MIN(both, other_bytes));
	return status;
}

/* Of what was chosen by more than the sample nothing is said that this does not bear out. */
static void tell_second(const struct tally *tally, struct tpd_plan *plan)
{
	const uint64_t own = TPD_MAX(tally->part[plan->encoding], (uint64_t)1);
	uint64_t best = 0;

	for (unsigned e = 0; e < TPD_ENCODING_COUNT; e++) {
		const uint64_t part = tally->part[e];

		if (part == 0 || e == plan->encoding || (best > 0 && part >= best))
			continue;
		best = part;
		plan->second = (enum tpd_encoding)e;
	}
	if (plan->low_rank && best < own)
		best = 0;
	plan->second_permille = (uint32_t)TPD_MIN(best * 1000 / own, (uint64_t)TPD_SECOND_MAX);
}

/* The predictions that are offered, against the plan that is best without; the tally has what that takes of a chunk. */
static enum tpd_status try_predictions(struct tpd_codec *codec, uint32_t row, const struct tpd_sample *sample, struct tally *tally,
				       struct tpd_plan *in_out_plan, uint64_t *in_out_bytes, struct tpd_err *err)
{
	const struct tpd_plan before = *in_out_plan;
	const uint64_t before_bytes = *in_out_bytes, part = tally->part[before.encoding];
	const enum tpd_encoding encoding = prediction_of(before.encoding, before.dtype);
	const unsigned last = encoding == TPD_ENCODING_STEPPED ? GRID_BIAS_MAX : GRID_BIAS_MIN;
	const bool low_rank = may_have_low_rank(&before, sample); /* then it is to be predicted somehow */
	uint64_t limit = before_bytes - TPD_MIN(part * (100 - PREDICTED_PERCENT) / 100, before_bytes), bytes = 0;
	enum tpd_status status = TPD_OK;

	if (low_rank)
		limit = UINT64_MAX;
	for (size_t i = 0; status == TPD_OK && i < sample->term_set_count && encoding != TPD_ENCODING_RAW; i++)
		for (unsigned bias = GRID_BIAS_MIN; status == TPD_OK && bias <= last; bias++) {
			struct tpd_plan plan = before;

			plan.encoding = encoding;
			plan.terms = offered_terms(sample, i, plan.dtype);
			plan.row = row;
			if (encoding == TPD_ENCODING_STEPPED)
				plan.grid_bias = (uint8_t)bias;
			if (plan.terms == 0)
				continue;
			status = try_beside(codec, &plan, sample, tally, before.encoding, before_bytes, &bytes, err);
			if (status != TPD_OK || bytes >= limit)
				continue;
			limit = bytes;
			*in_out_bytes = TPD_MIN(*in_out_bytes, bytes);
			in_out_plan->encoding = plan.encoding;
			in_out_plan->terms = plan.terms;
			in_out_plan->grid_bias = plan.grid_bias;
			in_out_plan->low_rank = low_rank;
		}
	return status;
}

/* How far each element may be off, said by others, against the plan that is best without. */
static enum tpd_status try_scaled(struct tpd_codec *codec, uint32_t row, const struct tpd_sample *sample, struct tally *tally,
				  struct tpd_plan *in_out_plan, uint64_t *in_out_bytes, struct tpd_err *err)
{
	const enum tpd_encoding other = in_out_plan->encoding;
	const uint64_t before = *in_out_bytes;
	const bool has_terms = sample->scaled_terms && tpd_terms_have(sample->scaled_terms, sample->inputs);
	enum tpd_status status = TPD_OK;

	for (unsigned with = 0; status == TPD_OK && with < (has_terms ? 2 : 1); with++) {
		struct tpd_plan plan = *in_out_plan;
		uint64_t bytes = 0;

		plan.encoding = sample->p ? TPD_ENCODING_SCALED : TPD_ENCODING_SCALED_ALONE;
		plan.terms = with ? sample->scaled_terms : 0;
		plan.row = row;
		status = try_beside(codec, &plan, sample, tally, other, before, &bytes, err);
		if (status != TPD_OK || bytes * 100 >= *in_out_bytes * (with && *in_out_bytes < before ? PREDICTED_PERCENT : SCALED_PERCENT))
			continue;
		*in_out_bytes = bytes;
		in_out_plan->encoding = plan.encoding;
		in_out_plan->terms = plan.terms;
	}
	return status;
}

/*
 * Where few 16-bit weights change, whatever tells them so far; by the terms of the plan, and by each other set of terms that is offered: what serves
 * `stepped` best need not serve `context`, which learns from all of them how much each is worth.
 */
static enum tpd_status try_context(struct tpd_codec *codec, uint32_t row, const struct tpd_sample *sample, struct tally *tally,
				   struct tpd_plan *in_out_plan, uint64_t *in_out_bytes, struct tpd_err *err)
{
	const struct tpd_plan before = *in_out_plan;
	const uint64_t before_bytes = *in_out_bytes;
	uint64_t limit = *in_out_bytes * TPD_CONTEXT_PERCENT / 100 + 1, bytes = 0;
	const size_t sets = sample->inputs ? sample->term_set_count : 0;
	enum tpd_status status = TPD_OK;

	if ((before.encoding != TPD_ENCODING_STEPPED && before.encoding != TPD_ENCODING_CLASSES && before.encoding != TPD_ENCODING_SPARSE) ||
	    !tpd_encoding_allows(TPD_ENCODING_CONTEXT, before.dtype) || *in_out_bytes > sample->len / sample->context_part)
		return TPD_OK;
	for (size_t i = 0; status == TPD_OK && i <= sets; i++) {
		struct tpd_plan plan = before;

		plan.encoding = TPD_ENCODING_CONTEXT;
		plan.row = row;
		if (i > 0) {
			plan.terms = offered_terms(sample, i - 1, plan.dtype);
			if (plan.terms == 0 || plan.terms == before.terms)
				continue;
		}
		status = try_beside(codec, &plan, sample, tally, before.encoding, before_bytes, &bytes, err);
		if (status != TPD_OK || bytes >= (i > 0 && before.terms == 0 ? limit * PREDICTED_PERCENT / 100 : limit))
			continue;
		limit = *in_out_bytes = bytes;
		in_out_plan->encoding = plan.encoding;
		in_out_plan->terms = plan.terms;
	}
	return status;
}

enum tpd_status tpd_plan_choose(struct tpd_codec *codec, enum tpd_dtype dtype, uint32_t row,
				const struct tpd_sample *sample, struct tpd_plan *out_plan, uint64_t *out_bytes,
				uint64_t *out_bytes_alone, struct tpd_err *err)
{
	struct tpd_plan best = {.encoding = TPD_ENCODING_RAW, .dtype = dtype, .row = row, .grid_bias = GRID_BIAS_MIN},
			plan = best;
	uint64_t best_bytes = sample->len, best_part = best_bytes, best_heat = 0, alone = sample->len;
	struct candidate candidates[CANDIDATES_MAX] = {0};
	struct tally tally = {.part[TPD_ENCODING_RAW] = sample->len};
	bool decided = false; /* by the heat */
	size_t count, heat_len = 0;
	enum tpd_status status = TPD_OK;

	if (row == 0 || row > TPD_ROW_MAX || sample->len == 0 || sample->len > TPD_CHUNK_MAX_BYTES ||
	    sample->stretch == 0 || (unsigned)dtype >= TPD_DTYPE_COUNT)
		return tpd_fail(err, TPD_USAGE, "a sample of %zu bytes of %s with rows of %u cannot be planned",
				sample->len, tpd_dtype_name(dtype), row);
	if (sample->stretch < sample->len) { /* a row does not go on from one stretch to the next */
		size_t elements = sample->stretch / tpd_dtype_width(dtype);

		plan.row = (uint32_t)TPD_MAX(TPD_MIN((size_t)row, elements), (size_t)1);
	}
	count = list_candidates(dtype, sample->p != NULL, candidates);
	if (dtype != TPD_DTYPE_BYTES && sample->len / sample->stretch >= 2 * HEAT_STEP && sample->len % sample->stretch == 0)
		status = run_heat(codec, &plan, sample, candidates, count, &decided, &heat_len, err);
	for (size_t i = 0; status == TPD_OK && i < count; i++) {
		struct candidate *candidate = &candidates[i];
		uint64_t part;

		plan.encoding = candidate->encoding;
		plan.grid_bias = candidate->grid_bias;
		plan.nibbles = candidate->nibbles;
		plan.form = candidate->form;
		if (!candidate->is_out && !decided)
			status = try_plan(codec, &plan, sample, &candidate->bytes, err);
		part = part_of_chunk(candidate, dtype, sample->len, heat_len);
		if (!candidate->is_out && candidate->bytes < sample->len)
			note(&tally, candidate->encoding, part);
		if (!candidate->is_out && candidate->bytes < sample->len && part < best_part) {
			best_bytes = candidate->bytes;
			best_part = part;
			best_heat = candidate->heat;
			best.encoding = plan.encoding;
			best.grid_bias = plan.grid_bias;
			best.nibbles = plan.nibbles;
			best.form = plan.form;
		}
		if (!tpd_encoding_needs_reference(plan.encoding))
			alone = TPD_MIN(alone, candidate->bytes);
	}
	if (status != TPD_OK)
		return status;
	for (size_t i = 0; i < count; i++) /* of these the heat is known, beside that of the best */
		if (candidates[i].is_out && best_heat > 0)
			note(&tally, candidates[i].encoding, candidates[i].heat * best_part / best_heat);
	if (sample->inputs && sample->p)
		status = try_predictions(codec, plan.row, sample, &tally, &best, &best_bytes, err);
	if (status == TPD_OK && sample->context_part > 0 && sample->p)
		status = try_context(codec, plan.row, sample, &tally, &best, &best_bytes, err);
	if (status == TPD_OK && sample->try_scaled && tpd_encoding_allows(TPD_ENCODING_SCALED, dtype))
		status = try_scaled(codec, plan.row, sample, &tally, &best, &best_bytes, err);
	if (status != TPD_OK)
		return status;
	if (dtype == TPD_DTYPE_BYTES && sample->p)
		best.encoding = TPD_ENCODING_ZSTD_REF;
	else
		tell_second(&tally, &best);
	*out_plan = best;
	*out_bytes = best_bytes;
	*out_bytes_alone = sample->p ? alone : best_bytes;
	return TPD_OK;
}

/*
 * F16 and BF16 are the same to byte planes.  They differ in where the exponent ends: of a BF16 the low 7 bits are noise
 * given the rest, of an F16 the low 10.  The ideal cost of the upper 9 bits plus 7 against the upper 6 bits plus 10,
 * in 1/4096 bits an element; for an F16 the two agree but for the slope of the density within an octave.  Zeros
 * say nothing.
 */
static enum tpd_dtype half_of(const struct tpd_codec *codec, const struct tpd_sample *sample)
{
	const uint64_t noise[2] = {7, 10}, margin = 4096 / 8;
	uint64_t cost[2] = {0, 0}, n = 0;

	for (unsigned form = 0; form < 2; form++) {
		uint32_t counts[256] = {0};

		n = 0;
		for (size_t i = 0; i + 2 <= sample->len; i += 2) {
			uint32_t x = tpd_get_u16(sample->x + i) & 0x7fff;

			counts[x >> noise[form]] += x != 0;
			n += x != 0;
		}
		for (unsigned e = 0; e < 256 && n > 0; e++) {
			uint32_t f = (uint32_t)(((uint64_t)counts[e] * TPD_RANS_SUM + n - 1) / n);

			cost[form] += counts[e] * (uint64_t)(f < TPD_RANS_SUM ? codec->cost[f] : 0);
		}
		cost[form] += n * noise[form] * 4096;
	}
	return cost[0] + n * margin < cost[1] ? TPD_DTYPE_BF16 : TPD_DTYPE_F16;
}

/*
 * Do the non-zero words of 4 or 2 bytes look like floats of 8 exponent bits?  Of values that belong together most have
 * exponents within 64 of each other (F16's 5 bits and 3 of its mantissa still do); of random words a quarter, and small
 * integers are denormals.  The lower halves of F32 are random words.
 */
static bool looks_float(const struct tpd_sample *sample, unsigned width)
{
	uint32_t counts[256] = {0}, all = 0, window = 0, most = 0;

	for (size_t i = 0; i + width <= sample->len; i += width) {
		uint32_t x = width == 4 ? tpd_get_u32(sample->x + i) : (uint32_t)tpd_get_u16(sample->x + i) << 16;

		x &= 0x7fffffff;
		counts[x >> 23] += x != 0;
		all += x != 0;
	}
	for (unsigned e = 1; e < 255; e++) {
		window += counts[e] - (e > FLOAT_SPREAD ? counts[e - FLOAT_SPREAD] : 0);
		most = TPD_MAX(most, window);
	}
	return (uint64_t)most * 4 >= (uint64_t)all * 3 && all > 0;
}

static enum tpd_status planes_cost(struct tpd_codec *codec, enum tpd_dtype dtype, const struct tpd_sample *sample,
				   uint64_t *out_bytes, struct tpd_err *err)
{
	const struct tpd_plan plan = {.encoding = TPD_ENCODING_PLANES, .dtype = dtype, .row = 1024};

	return try_plan(codec, &plan, sample, out_bytes, err);
}

/* What byte planes of this type cost; UINT64_MAX when the sample is better off, or looks, otherwise. */
static enum tpd_status type_cost(struct tpd_codec *codec, enum tpd_dtype dtype, const struct tpd_sample *sample,
				 uint64_t untyped, uint64_t limit, uint64_t *out_bytes, struct tpd_err *err)
{
	uint64_t planes = 0, typed = 0, ignored;
	struct tpd_plan plan;
	enum tpd_status status = planes_cost(codec, dtype, sample, &planes, err);

	if (status == TPD_OK)
		status = tpd_plan_choose(codec, dtype, 1024, sample, &plan, &typed, &ignored, err);
	if (status != TPD_OK)
		return status;
	*out_bytes = planes;
	if (planes >= limit || typed > untyped || !looks_float(sample, tpd_dtype_width(dtype)))
		*out_bytes = UINT64_MAX;
	return TPD_OK;
}

/* The words of 4 bytes that are not zero: what is left says what type they have, with rows never used left out. */
static enum tpd_status without_zeros(struct tpd_codec *codec, const struct tpd_sample *sample,
				     struct tpd_sample *out_sample, struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->check, sample->len + 4, err);
	size_t len = 0;

	if (status != TPD_OK)
		return status;
	for (size_t i = 0; i + 4 <= sample->len; i += 4) {
		uint32_t word = tpd_get_u32(sample->x + i);

		tpd_put_u32(codec->check.data + len, word);
		len += word != 0 ? 4 : 0;
	}
	*out_sample = (struct tpd_sample){.x = codec->check.data, .len = len, .stretch = len};
	return TPD_OK;
}

/* Pairs of halves look like F32, and cost the same then to within their headers: F32 must be clearly cheaper. */
enum tpd_status tpd_plan_guess_dtype(struct tpd_codec *codec, const struct tpd_sample *sample,
				     enum tpd_dtype *out_dtype, struct tpd_err *err)
{
	uint64_t bytes = 0, untyped = 0, f32 = 0, half = 0, ignored;
	struct tpd_sample alone;
	struct tpd_plan plan;
	enum tpd_status status = without_zeros(codec, sample, &alone, err);

	if (status == TPD_OK && alone.len == 0) {
		*out_dtype = TPD_DTYPE_BYTES;
		return TPD_OK;
	}
	if (status == TPD_OK)
		status = planes_cost(codec, TPD_DTYPE_BYTES, &alone, &bytes, err);
	if (status == TPD_OK)
		status = tpd_plan_choose(codec, TPD_DTYPE_BYTES, 1024, &alone, &plan, &untyped, &ignored, err);
	bytes = bytes * GUESS_PERCENT / 100;
	if (status == TPD_OK)
		status = type_cost(codec, TPD_DTYPE_F32, &alone, untyped, bytes, &f32, err);
	if (status == TPD_OK)
		status = type_cost(codec, TPD_DTYPE_F16, &alone, untyped, bytes, &half, err);
	if (status != TPD_OK)
		return status;
	if (half != UINT64_MAX && (f32 == UINT64_MAX || f32 > half * GUESS_PERCENT / 100))
		*out_dtype = half_of(codec, &alone);
	else
		*out_dtype = f32 != UINT64_MAX ? TPD_DTYPE_F32 : TPD_DTYPE_BYTES;
	return TPD_OK;
}
