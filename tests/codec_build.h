/*
 * codec_build.h - readable builders of chunk payloads (SPEC.md), for tests that change one field of honest bytes.
 *
 * A stream is described by a struct whose fields are those of the format; build_* write what the struct says, be
 * it valid or not.
 */
#ifndef TESTS_CODEC_BUILD_H
#define TESTS_CODEC_BUILD_H

#include "base/tpd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "codec/internal.h"
#include "codec/kernels.h"

/* S(n), coder 3 */
struct rans_parts {
	unsigned coder, k, first, last;
	uint16_t freq[256];
	uint32_t words; /* as written; the bytes are word_bytes long */
	uint32_t states[64];
	uint8_t word_bytes[4096];
	size_t word_len;
};

/* Frequencies must be set; codes n symbols with the real kernel. */
static inline void rans_code(struct rans_parts *parts, const uint8_t *symbols, size_t n)
{
	uint8_t buffer[4096], *words;

	ck_assert_uint_le(2 * n + TPD_WORDS_SLACK, sizeof buffer);
	words = tpd_kernels_scalar.rans_encode(symbols, n, parts->k, parts->freq, buffer + sizeof buffer, parts->states);
	parts->word_len = (size_t)(buffer + sizeof buffer - words);
	parts->words = (uint32_t)(parts->word_len / 2);
	memcpy(parts->word_bytes, words, parts->word_len);
}

static inline void build_rans(struct tpd_buf *buf, const struct rans_parts *parts)
{
	tpd_buf_u8(buf, (uint8_t)parts->coder);
	tpd_buf_u8(buf, (uint8_t)parts->k);
	tpd_buf_u8(buf, (uint8_t)parts->first);
	tpd_buf_u8(buf, (uint8_t)parts->last);
	for (unsigned s = parts->first; s <= parts->last; s++) {
		unsigned zeros = 0;

		tpd_buf_varint(buf, parts->freq[s]);
		if (parts->freq[s] > 0)
			continue;
		while (s < parts->last && parts->freq[s + 1] == 0) {
			zeros++;
			s++;
		}
		tpd_buf_u8(buf, (uint8_t)zeros);
	}
	tpd_buf_u32(buf, parts->words);
	for (unsigned lane = 0; lane < 1u << parts->k && lane < 64; lane++)
		tpd_buf_u32(buf, parts->states[lane]);
	tpd_buf_put(buf, parts->word_bytes, parts->word_len);
}

static inline void build_raw(struct tpd_buf *buf, const uint8_t *symbols, size_t n)
{
	tpd_buf_u8(buf, TPD_CODER_RAW);
	tpd_buf_put(buf, symbols, n);
}

struct sparse_parts {
	unsigned code, k;
	uint64_t m;
	uint32_t gaps_len; /* as written */
	uint8_t gaps[64];
	uint32_t gap_bytes;
	uint8_t symbols[64];
	size_t symbol_count;
	uint32_t words; /* as written */
	uint32_t field_words[32];
	uint32_t word_count;
	uint8_t left[8];
	size_t left_len;
};

static inline void build_sparse(struct tpd_buf *buf, const struct sparse_parts *parts)
{
	tpd_buf_u8(buf, (uint8_t)parts->code);
	tpd_buf_u8(buf, (uint8_t)parts->k);
	tpd_buf_varint(buf, parts->m);
	tpd_buf_u32(buf, parts->gaps_len);
	tpd_buf_put(buf, parts->gaps, parts->gap_bytes);
	build_raw(buf, parts->symbols, parts->symbol_count);
	tpd_buf_u32(buf, parts->words);
	for (size_t i = 0; i < parts->word_count; i++)
		tpd_buf_u32(buf, parts->field_words[i]);
	tpd_buf_put(buf, parts->left, parts->left_len);
}

struct grid_parts {
	unsigned row, first;
	uint8_t steps[64];
	size_t step_count;
	uint8_t symbols[64];
	size_t symbol_count;
	uint32_t words; /* as written */
	uint32_t field_words[32];
	uint32_t word_count;
	uint8_t left[8];
	size_t left_len;
};

static inline void build_grid(struct tpd_buf *buf, const struct grid_parts *parts)
{
	tpd_buf_u16(buf, (uint16_t)parts->row);
	tpd_buf_u16(buf, (uint16_t)parts->first);
	build_raw(buf, parts->steps, parts->step_count);
	build_raw(buf, parts->symbols, parts->symbol_count);
	tpd_buf_u32(buf, parts->words);
	for (size_t i = 0; i < parts->word_count; i++)
		tpd_buf_u32(buf, parts->field_words[i]);
	tpd_buf_put(buf, parts->left, parts->left_len);
}

#endif
