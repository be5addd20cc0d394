/*
 * symbols_decode.c - reads a symbol stream S(n), SPEC.md section 3.
 *
 * Every rule is checked here before the kernel runs; what only shows at the end (words left over, a lane's
 * last state) the kernel reports.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/classes.h"
#include "codec/internal.h"
#include "codec/kernels.h"

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "symbol stream: %s", what);
}

enum tpd_status tpd_rans_read_frequencies(struct tpd_rd *rd, unsigned first, unsigned last, uint16_t freq[256], struct tpd_err *err)
{
	uint32_t sum = 0;

	memset(freq, 0, 256 * sizeof freq[0]);
	for (unsigned s = first; s <= last; s++) {
		uint64_t f = tpd_rd_varint(rd);

		if (!tpd_rd_ok(rd))
			return corrupt(err, "ends inside the frequencies");
		if (f > TPD_RANS_SUM - sum)
			return corrupt(err, "the frequencies sum to more than 4096");
		freq[s] = (uint16_t)f;
		sum += (uint32_t)f;
		if (f == 0) {
			unsigned zeros = tpd_rd_u8(rd);

			if (!tpd_rd_ok(rd) || zeros >= last - s)
				return corrupt(err, "a run of zero frequencies reaches the last symbol");
			s += zeros;
		}
	}
	if (sum != TPD_RANS_SUM)
		return corrupt(err, "the frequencies do not sum to 4096");
	if (freq[first] == 0 || freq[last] == 0)
		return corrupt(err, "the first or last symbol does not occur");
	return TPD_OK;
}

static const char *read_states(struct tpd_rd *rd, unsigned k, uint32_t *states)
{
	for (unsigned lane = 0; lane < 1u << k; lane++) {
		states[lane] = tpd_rd_u32(rd);
		if (states[lane] < TPD_RANS_LOW || states[lane] >= UINT32_C(1) << 31)
			return "a rANS state is out of range";
	}
	return NULL;
}

const char *tpd_rans_read_states(struct tpd_rd *rd, unsigned k, uint32_t *states, const uint8_t **out_words, uint32_t *out_count)
{
	const uint32_t count = tpd_rd_u32(rd);
	const char *wrong = read_states(rd, k, states);

	if (wrong)
		return wrong;
	*out_count = count;
	*out_words = tpd_rd_bytes(rd, (uint64_t)count * 2);
	return *out_words ? NULL : "ends inside the rANS words";
}

static enum tpd_status run_rans(struct tpd_codec *codec, const uint8_t *words, uint32_t count, unsigned k, const uint16_t freq[256],
				uint32_t *states, const struct tpd_prefetch *soon, uint8_t *out, size_t n, struct tpd_err *err)
{
	if (!codec->kernels->rans_decode(words, count, k, freq, codec->rans_decode, states, soon, out, n))
		return corrupt(err, "the rANS words do not end where they must");
	return TPD_OK;
}

static enum tpd_status decode_rans(struct tpd_codec *codec, struct tpd_rd *rd, const struct tpd_prefetch *soon, uint8_t *out, size_t n,
				   struct tpd_err *err)
{
	unsigned k = tpd_rd_u8(rd), first = tpd_rd_u8(rd), last = tpd_rd_u8(rd);
	uint32_t states[TPD_RANS_LANES_MAX], count;
	uint16_t freq[256];
	const uint8_t *words;
	const char *wrong;
	enum tpd_status status;

	if (!tpd_rd_ok(rd) || k > 6 || first >= last)
		return corrupt(err, "bad rANS header");
	status = tpd_rans_read_frequencies(rd, first, last, freq, err);
	if (status != TPD_OK)
		return status;
	wrong = tpd_rans_read_states(rd, k, states, &words, &count);
	if (wrong)
		return corrupt(err, wrong);
	return run_rans(codec, words, count, k, freq, states, soon, out, n, err);
}

unsigned tpd_symbol_moved(unsigned symbol, unsigned from, unsigned to)
{
	const unsigned moved = symbol - from + to; /* wraps around below 0 */

	if (symbol <= TPD_SYMBOL_ZERO)
		return symbol;
	return moved > TPD_SYMBOL_ZERO && moved < TPD_SYMBOL_NOWHERE ? moved : TPD_SYMBOL_NOWHERE;
}

bool tpd_symbols_move_table(const uint16_t from[256], unsigned middle, uint16_t to[256])
{
	memset(to, 0, 256 * sizeof(to[0]));
	for (unsigned s = 0; s < 256; s++) {
		const unsigned byte = tpd_symbol_moved(s, TPD_SYMBOL_MIDDLE, middle);

		if (from[s] == 0)
			continue;
		if (byte == TPD_SYMBOL_NOWHERE)
			return false;
		to[byte] = from[s];
	}
	return true;
}

static enum tpd_status decode_curve(struct tpd_codec *codec, struct tpd_rd *rd, const struct tpd_prefetch *soon, uint8_t *out, size_t n,
				    struct tpd_err *err)
{
	const unsigned k = tpd_rd_u8(rd), middle = tpd_rd_u8(rd);
	uint32_t states[TPD_RANS_LANES_MAX];
	uint16_t table[256], freq[256];
	const uint8_t *words;
	const char *wrong;
	uint64_t count;
	enum tpd_status status;

	if (!tpd_rd_ok(rd) || k > 6 || middle <= TPD_SYMBOL_ZERO)
		return corrupt(err, "bad rANS header");
	status = tpd_class_read_table(rd, table, err);
	if (status != TPD_OK)
		return status;
	if (!tpd_symbols_move_table(table, middle, freq))
		return corrupt(err, "a table reaches beyond the bytes");
	for (unsigned s = 0; s < 256; s++)
		if (freq[s] == TPD_RANS_SUM)
			return corrupt(err, "a table of a single symbol");
	count = tpd_rd_varint(rd);
	wrong = read_states(rd, k, states);
	words = count <= UINT32_MAX ? tpd_rd_bytes(rd, count * 2) : NULL;
	if (wrong || !words)
		return corrupt(err, wrong ? wrong : "ends inside the rANS words");
	return run_rans(codec, words, (uint32_t)count, k, freq, states, soon, out, n, err);
}

static enum tpd_status view(struct tpd_codec *codec, struct tpd_rd *rd, const struct tpd_prefetch *soon, uint8_t *out, size_t n,
			    const uint8_t **out_symbols, struct tpd_err *err)
{
	unsigned coder = tpd_rd_u8(rd);
	const uint8_t *bytes;
	uint32_t size;

	if (!tpd_rd_ok(rd))
		return corrupt(err, "is not there");
	if (coder > TPD_CODER_CURVE)
		return tpd_fail(err, TPD_UNSUPPORTED, "symbol stream: unknown coder %u", coder);
	*out_symbols = out;
	if (n == 0)
		return coder == TPD_CODER_RAW ? TPD_OK : corrupt(err, "an empty one with a coder");
	switch (coder) {
	case TPD_CODER_RAW:
		bytes = tpd_rd_bytes(rd, n);
		if (!bytes)
			return corrupt(err, "ends inside its bytes");
		*out_symbols = bytes;
		return TPD_OK;
	case TPD_CODER_CONSTANT:
		memset(out, tpd_rd_u8(rd), n);
		return tpd_rd_ok(rd) ? TPD_OK : corrupt(err, "has no value");
	case TPD_CODER_ZSTD:
		size = tpd_rd_u32(rd);
		bytes = tpd_rd_bytes(rd, size);
		if (!bytes)
			return corrupt(err, "ends inside its Zstandard frame");
		return tpd_zstd_decode(codec->zstd, NULL, 0, bytes, size, out, n, err);
	case TPD_CODER_RANS:
		return decode_rans(codec, rd, soon, out, n, err);
	default:
		return decode_curve(codec, rd, soon, out, n, err);
	}
}

enum tpd_status tpd_symbols_view(struct tpd_codec *codec, struct tpd_rd *rd, uint8_t *out, size_t n, const uint8_t **out_symbols,
				 struct tpd_err *err)
{
	return view(codec, rd, NULL, out, n, out_symbols, err);
}

enum tpd_status tpd_symbols_decode(struct tpd_codec *codec, struct tpd_rd *rd, uint8_t *out, size_t n,
				   struct tpd_err *err)
{
	return tpd_symbols_decode_before(codec, rd, NULL, out, n, err);
}

enum tpd_status tpd_symbols_decode_before(struct tpd_codec *codec, struct tpd_rd *rd, const struct tpd_prefetch *soon, uint8_t *out, size_t n,
					  struct tpd_err *err)
{
	const uint8_t *symbols = out;
	enum tpd_status status = view(codec, rd, soon, out, n, &symbols, err);

	if (status == TPD_OK && symbols != out)
		memcpy(out, symbols, n);
	return status;
}
