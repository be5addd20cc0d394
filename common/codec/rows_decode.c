/*
 * rows_decode.c - the way back from rows_encode.c: piece by piece, since a piece may be told from one before it.
 */
#include "base/tpd.h"

#include <string.h>

#include "codec/internal.h"
#include "codec/rows.h"

struct tables {
	uint32_t *slots;                             /* 4096 a table: (slot - cum) << 20 | (f - 1) << 8 | symbol */
	uint16_t of[TPD_ROWS_GROUPS][TPD_ROWS_KEYS]; /* which one a key has */
	unsigned count;
};

static enum tpd_status corrupt(struct tpd_err *err, const char *what)
{
	return tpd_fail(err, TPD_CORRUPT, "rows: %s", what);
}

static enum tpd_status read_table(struct tpd_rd *rd, unsigned most, uint32_t *slots, struct tpd_err *err)
{
	unsigned first = tpd_rd_u8(rd), last = tpd_rd_u8(rd);
	uint16_t freq[256] = {0};
	uint32_t slot = 0;
	enum tpd_status status;

	if (!tpd_rd_ok(rd) || first > last || last > most)
		return corrupt(err, "bad symbols");
	freq[first] = TPD_RANS_SUM;
	if (first < last) {
		status = tpd_rans_read_frequencies(rd, first, last, freq, err);
		if (status != TPD_OK)
			return status;
	}
	for (unsigned s = first; s <= last; s++)
		for (uint32_t offset = 0; offset < freq[s]; offset++)
			slots[slot++] = offset << 20 | (freq[s] - 1u) << 8 | s;
	return TPD_OK;
}

static enum tpd_status read_group(struct tpd_rd *rd, unsigned most, struct tables *tables, uint16_t of[TPD_ROWS_KEYS], struct tpd_err *err)
{
	unsigned bounds = tpd_rd_u8(rd), key = 0;
	enum tpd_status status = TPD_OK;

	if (!tpd_rd_ok(rd) || bounds >= TPD_ROWS_KEYS || tables->count + bounds + 1 > TPD_ROWS_TABLES)
		return corrupt(err, "too many tables");
	for (unsigned b = 0; b < bounds; b++) {
		unsigned bound = tpd_rd_u8(rd);

		if (bound <= key || bound >= TPD_ROWS_KEYS)
			return corrupt(err, "bounds that do not ascend");
		while (key < bound)
			of[key++] = (uint16_t)(tables->count + b);
	}
	while (key < TPD_ROWS_KEYS)
		of[key++] = (uint16_t)(tables->count + bounds);
	for (unsigned b = 0; b <= bounds && status == TPD_OK; b++)
		status = read_table(rd, most, tables->slots + (size_t)tables->count++ * TPD_RANS_SUM, err);
	return status;
}

struct words {
	const uint8_t *at, *end;
	unsigned k;
	uint32_t states[TPD_RANS_LANES_MAX];
};

/* s: what each of the n elements is told from; it may be x itself, further to the front. */
static bool decode_piece(const struct tpd_rows_type *type, const struct tables *tables, const uint16_t *of, struct words *words,
			 const uint8_t *s, size_t n, uint8_t *x)
{
	const size_t lanes = ((size_t)1 << words->k) - 1;
	const uint8_t *at = words->at, *const end = words->end;

	for (size_t i = 0; i < n; i++) {
		uint32_t *state = &words->states[i & lanes];
		uint32_t entry = tables->slots[(size_t)of[type->key[s[i]]] << TPD_RANS_BITS | (*state & (TPD_RANS_SUM - 1))];
		uint32_t next = ((entry >> 8 & 0xfff) + 1) * (*state >> TPD_RANS_BITS) + (entry >> 20);

		if (next < TPD_RANS_LOW) {
			if (at == end)
				return false;
			next = next << 16 | tpd_get_u16(at);
			at += 2;
		}
		*state = next;
		x[i] = tpd_rows_value(type, (uint8_t)entry, s[i]);
	}
	words->at = at;
	return true;
}

static enum tpd_status decode_pieces(const struct tpd_rows_type *type, const struct tables *tables, const uint8_t *sources,
				     const uint8_t *groups, const struct tpd_pieces *pieces, struct words *words, const uint8_t *p,
				     uint8_t *out, struct tpd_err *err)
{
	static const uint8_t zeros[2 * TPD_ROW_MAX];
	const size_t count = tpd_piece_count(pieces);

	for (size_t i = 0; i < count; i++) {
		const size_t start = tpd_piece_start(pieces, i), n = tpd_piece_start(pieces, i + 1) - start;
		const size_t back = sources[i] * pieces->row;
		const uint8_t *from = zeros;

		if (sources[i] == TPD_ROWS_SOURCE_REF)
			from = p + start;
		else if (back > start)
			return corrupt(err, "a piece that is told from before the chunk");
		else if (sources[i] != TPD_ROWS_SOURCE_NONE)
			from = out + start - back;
		if (!decode_piece(type, tables, tables->of[groups[i]], words, from, n, out + start))
			return corrupt(err, "the rANS words run out");
	}
	return TPD_OK;
}

/* Elements of one form: n of them, and row and first count such, too. */
static enum tpd_status decode_elements(struct tpd_codec *codec, const struct tpd_rows_type *type, struct tpd_rd *rd, const uint8_t *p,
				       const struct tpd_pieces *pieces, uint8_t *out, struct tpd_err *err)
{
	const unsigned group_count = tpd_rd_u8(rd);
	const size_t count = tpd_piece_count(pieces);
	struct tables tables = {.count = 0};
	struct words words;
	uint8_t *sources, *groups;
	const char *wrong;
	uint32_t word_count;
	enum tpd_status status;

	if (!tpd_rd_ok(rd) || group_count == 0 || group_count > TPD_ROWS_GROUPS)
		return corrupt(err, "bad header");
	status = tpd_scratch_need(&codec->steps, 2 * count, err);
	if (status == TPD_OK)
		status = tpd_scratch_need(&codec->rows, (size_t)TPD_ROWS_TABLES * TPD_RANS_SUM * sizeof(*tables.slots), err);
	if (status != TPD_OK)
		return status;
	sources = codec->steps.data;
	groups = sources + count;
	tables.slots = (uint32_t *)(void *)codec->rows.data;
	status = tpd_symbols_decode(codec, rd, sources, count, err);
	if (status == TPD_OK)
		status = tpd_symbols_decode(codec, rd, groups, count, err);
	for (size_t i = 0; status == TPD_OK && i < count; i++)
		if (groups[i] >= group_count || (sources[i] == TPD_ROWS_SOURCE_REF && !p))
			status = corrupt(err, "a group or source that is not there");
	for (unsigned g = 0; status == TPD_OK && g < group_count; g++)
		status = read_group(rd, 0xffu >> type->lacks, &tables, tables.of[g], err);
	if (status != TPD_OK)
		return status;
	words.k = tpd_rd_u8(rd);
	if (!tpd_rd_ok(rd) || words.k > 6)
		return corrupt(err, "bad header");
	wrong = tpd_rans_read_states(rd, words.k, words.states, &words.at, &word_count);
	if (wrong)
		return corrupt(err, wrong);
	words.end = words.at + (size_t)word_count * 2;
	status = decode_pieces(type, &tables, sources, groups, pieces, &words, p, out, err);
	if (status != TPD_OK)
		return status;
	if (!tpd_rans_is_end(words.at, words.end, words.states, (size_t)1 << words.k) || tpd_rd_left(rd) > 0)
		return corrupt(err, "it does not end where it must");
	return TPD_OK;
}

enum tpd_status tpd_decode_rows(struct tpd_codec *codec, enum tpd_dtype dtype, struct tpd_rd *rd, const uint8_t *p, uint8_t *out, size_t len,
				struct tpd_err *err)
{
	const unsigned form = tpd_rd_u8(rd);
	const size_t row = tpd_rd_u16(rd), first = tpd_rd_u16(rd), each = form + 1;
	struct tpd_rows_type type;
	uint8_t *x, *ref = NULL;
	enum tpd_status status;

	if (tpd_rd_ok(rd) && form > TPD_ROWS_NIBBLES)
		return tpd_fail(err, TPD_UNSUPPORTED, "rows: elements of an unknown form %u", form);
	if (!tpd_rd_ok(rd) || row == 0 || row > TPD_ROW_MAX || first == 0 || first > row ||
	    (form == TPD_ROWS_NIBBLES && !tpd_rows_may_split(dtype)))
		return corrupt(err, "bad header");
	tpd_rows_type(dtype, form == TPD_ROWS_NIBBLES, &type);
	if (form == TPD_ROWS_BYTES)
		return decode_elements(codec, &type, rd, p, &(struct tpd_pieces){first, row, len}, out, err);
	status = tpd_scratch_need(&codec->symbols, 4 * len, err);
	if (status != TPD_OK)
		return status;
	x = codec->symbols.data;
	if (p) {
		ref = x + 2 * len;
		tpd_rows_split(p, len, ref);
	}
	status = decode_elements(codec, &type, rd, ref, &(struct tpd_pieces){first * each, row * each, len * each}, x, err);
	if (status == TPD_OK)
		tpd_rows_join(x, len, out);
	return status;
}
