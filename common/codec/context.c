/*
 * context.c - symbols of a grid, one bit after the other, each with the chance that its contexts give it. SPEC.md section 18.
 *
 * What is known of an element is more than one key of classes_encode.c can hold: how far its step goes, and how much of exp_avg_sq is new, each
 * in its own ulps and in units of T, what the moments say of each other, what its neighbours did. A table for each combination
 * would learn nothing from the few thousand elements that change. So each bit of a symbol has a count in each of several contexts, and
 * weights that learn mix these. Elements whose reach is so small that none of them changed (most, in a fine-tune) are told in the header, and
 * neither looked at nor coded.
 *
 * Rejected: a last correction of the chances (0.2 % shorter), a curve with a centre and curves of more contexts (0.2 %), more terms and a robust fit
 * for the step (0.4 %); magnitudes so far by row and column, the size of exp_avg_sq, the reference's mantissa, the last step (none shorter: contexts
 * that say little cost what they have to learn).
 */
#include "base/tpd.h"

#include "codec/context.h"

#include <fenv.h>
#include <string.h>

#include "codec/classes.h"
#include "codec/context_kernel.h"
#include "codec/kernels.h"
#include "codec/kernels_internal.h"

#define NEVER ((uint8_t)REACHES)
#define CODE_BYTES 4u /* of the coder's state */

/* --- the coder of bits --- */

static void open_coder(struct tpd_context_coder *coder, const uint8_t *data, size_t len)
{
	*coder = (struct tpd_context_coder){.high = UINT32_MAX, .at = data, .end = data + len};
	for (unsigned i = 0; i < CODE_BYTES; i++)
		coder->value = coder->value << 8 | next_byte(coder);
}

/* As few bytes as say which value it is, when zeros follow. */
static void close_coder(struct tpd_context_coder *coder)
{
	unsigned bytes = 0;

	while (bytes < CODE_BYTES && (bytes == 0 ? 0 : coder->high >> (32 - 8 * bytes) << (32 - 8 * bytes)) < coder->low)
		bytes++;
	for (unsigned i = 0; i < bytes && coder->out < coder->out_end; i++)
		*coder->out++ = (uint8_t)(coder->high >> (24 - 8 * i));
}

/* --- both directions --- */

const struct tpd_context_kernels tpd_context_scalar = {context_encode, context_decode};

static struct tpd_context_ground ground_of(enum tpd_dtype dtype, unsigned t, const uint8_t *p, const struct tpd_class_given *given,
					   const struct tpd_pieces *pieces)
{
	struct tpd_context_ground ground = {.given = given, .dtype = dtype, .p = p, .n = pieces->n, .row = pieces->row,
					    .rule = {.by = TPD_BY_INNOVATION, .steps = given->steps, .v1 = given->v1, .v2 = given->v2}};

	tpd_grid_type(dtype, &ground.type);
	ground.t_ulp = tpd_class_ulp(ground.type, (int32_t)t);
	return ground;
}

/* What the codec's memory has. */
static enum tpd_status lay_out(struct tpd_codec *codec, size_t n, size_t places, struct tpd_context_ground *ground,
			       struct tpd_context_model **out_model, uint32_t **out_places, struct tpd_err *err)
{
	enum tpd_status status = tpd_scratch_need(&codec->classes, (places + 8) * sizeof(**out_places) + n * (sizeof(*ground->keys) + 1) + 1, err);

	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->tables, sizeof(**out_model), err);
	if (status != TPD_OK)
		return status;
	*out_places = (uint32_t *)(void *)codec->classes.data;
	ground->keys = (uint16_t *)(*out_places + places + 8);
	ground->magnitudes = (uint8_t *)(ground->keys + n);
	memset(ground->magnitudes, 0, n);
	*out_model = (struct tpd_context_model *)(void *)codec->tables.data;
	return TPD_OK;
}

/* Exponents and reaches. Without v, reach is the step alone. */
static void make_keys(const struct tpd_codec *codec, const struct tpd_context_ground *ground, const struct tpd_pieces *pieces)
{
	struct tpd_class_rule use = ground->rule;

	if (!use.v1 || !use.v2)
		use.v1 = use.v2 = ground->given->zeros;
	codec->kernels->class_keys(ground->dtype, &use, ground->p, pieces, ground->keys);
}

/* For each exponent, where changes begin. Returns for how many there are any. */
static unsigned find_lows(struct tpd_context_ground *ground, const uint32_t *places, size_t changes)
{
	unsigned count = EXPONENTS;

	memset(ground->lows, NEVER, sizeof(ground->lows));
	for (size_t i = 0; i < changes; i++) {
		const unsigned key = ground->keys[places[i]];

		ground->lows[key / REACHES] = (uint8_t)TPD_MIN(ground->lows[key / REACHES], key % REACHES);
	}
	while (count > 0 && ground->lows[count - 1] == NEVER)
		count--;
	return count;
}

enum tpd_status tpd_context_symbols_encode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, const uint8_t *p,
					   const struct tpd_class_given *given, const uint8_t *symbols, const struct tpd_pieces *pieces,
					   uint8_t *out, size_t *out_len, struct tpd_err *err)
{
	struct tpd_context_ground ground = ground_of(dtype, t, p, given, pieces);
	struct tpd_context_coder coder = {.high = UINT32_MAX, .out_end = out + TPD_CONTEXT_SYMBOLS_BOUND(pieces->n)};
	struct tpd_context_model *model;
	uint32_t *places;
	uint8_t *begin = out;
	size_t changes;
	unsigned count;
	fenv_t caller;
	enum tpd_status status = lay_out(codec, pieces->n, pieces->n, &ground, &model, &places, err);

	if (status != TPD_OK)
		return status;
	ground.rule.base = t > TPD_CLASS_BELOW_T ? t - TPD_CLASS_BELOW_T : 0;
	changes = tpd_class_places(symbols, pieces->n, places);
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	if (given->v1 && given->v2)
		tpd_class_innovation(dtype, p, places, changes, given, &ground.rule);
	make_keys(codec, &ground, pieces);
	count = find_lows(&ground, places, changes);
	*out++ = (uint8_t)ground.rule.base;
	tpd_put_u16(out, (uint16_t)(bits_of(ground.rule.decay) >> 16));
	tpd_put_u16(out + 2, (uint16_t)(bits_of(ground.rule.noise) >> 16));
	out += 4;
	*out++ = (uint8_t)count;
	memcpy(out, ground.lows, count);
	out += count;
	coder.out = out + 4;
	context_open(model);
	codec->kernels->context->encode(&ground, model, symbols, &coder);
	close_coder(&coder);
	fesetenv(&caller);
	tpd_put_u32(out, (uint32_t)(coder.out - out - 4));
	*out_len = coder.out == coder.out_end ? SIZE_MAX : (size_t)(coder.out - begin);
	return TPD_OK;
}

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "context: %s", what);
}

enum tpd_status tpd_context_symbols_decode(struct tpd_codec *codec, enum tpd_dtype dtype, unsigned t, struct tpd_rd *rd, const uint8_t *p,
					   const struct tpd_class_given *given, uint8_t *symbols, const struct tpd_pieces *pieces,
					   struct tpd_err *err)
{
	struct tpd_context_ground ground = ground_of(dtype, t, p, given, pieces);
	struct tpd_context_model *model;
	uint32_t *places;
	struct tpd_context_coder coder;
	const uint8_t *data;
	bool valid;
	unsigned count;
	size_t len;
	fenv_t caller;
	enum tpd_status status = lay_out(codec, pieces->n, 0, &ground, &model, &places, err);

	if (status != TPD_OK)
		return status;
	ground.rule.base = tpd_rd_u8(rd);
	ground.rule.decay = float_of((uint32_t)tpd_rd_u16(rd) << 16);
	ground.rule.noise = float_of((uint32_t)tpd_rd_u16(rd) << 16);
	count = tpd_rd_u8(rd);
	if (!tpd_rd_ok(rd) || count > EXPONENTS)
		return corrupt(err, "bad header");
	memset(ground.lows, NEVER, sizeof(ground.lows));
	for (unsigned e = 0; e < count; e++) {
		ground.lows[e] = tpd_rd_u8(rd);
		if (ground.lows[e] > NEVER)
			return corrupt(err, "a reach that is none");
	}
	len = tpd_rd_u32(rd);
	data = tpd_rd_bytes(rd, len);
	if (!data)
		return corrupt(err, "ends inside its bits");
	open_coder(&coder, data, len);
	fegetenv(&caller);
	fesetenv(FE_DFL_ENV);
	make_keys(codec, &ground, pieces);
	context_open(model);
	memset(symbols, TPD_SYMBOL_EQUAL, pieces->n);
	valid = codec->kernels->context->decode(&ground, model, &coder, symbols);
	fesetenv(&caller);
	if (!valid)
		return corrupt(err, "a change that is none");
	/* The encoder's last bytes are as few as will do: up to four more are taken for zeros. */
	if (coder.at != coder.end || coder.beyond > CODE_BYTES)
		return corrupt(err, "its bits do not end where they must");
	return TPD_OK;
}
