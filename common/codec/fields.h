/*
 * fields.h - the remainder stream B of SPEC.md section 4: bit fields in 16 lanes.
 *
 * The decoder asks for a lane's next word only when the lane runs short, so words stand in the order of demand:
 *
 *     lane 0   [word 0            ][word 17 ...
 *     lane 1   [word 1       ][word 16     ...       (a word is reserved when its first bit is needed)
 *
 * The writer here therefore reserves a place the moment the decoder will ask for it, and keeps filling it
 * afterwards; the vector forms (kernels_avx512.c) write backwards instead, from fields that are all in memory.  Rejected: one
 * queue for all lanes (it cannot be vectorised).  Both loops are free of branches that data decides.
 */
#ifndef TPD_CODEC_FIELDS_H
#define TPD_CODEC_FIELDS_H

#include "base/tpd.h"

#include <string.h>

#include "base/bytes.h"

#define TPD_LANES 16u

/* The places of n elements and of the lanes that are empty in their last round. */
static inline size_t tpd_whole_rounds(size_t n)
{
	return (n + TPD_LANES - 1) / TPD_LANES * TPD_LANES;
}

struct tpd_fields_out {
	uint64_t acc[TPD_LANES];   /* bits of the word being filled */
	uint32_t bits[TPD_LANES];  /* how many: 32 when it is full and none is open */
	uint32_t place[TPD_LANES]; /* its place; 0 is where the word count will stand */
	uint32_t words;            /* places given out, the count's included */
	uint8_t *out;              /* borrowed: 4 bytes for the count and 4 for each field that is not empty */
};

static inline void tpd_fields_start(struct tpd_fields_out *fields, uint8_t *out)
{
	for (unsigned lane = 0; lane < TPD_LANES; lane++) {
		fields->acc[lane] = 0;
		fields->bits[lane] = 32;
		fields->place[lane] = 0;
	}
	fields->words = 1;
	fields->out = out;
}

/* One field of 0 .. 32 bits; value has no others.  `words` is a local of the caller. */
static inline void tpd_fields_put(struct tpd_fields_out *fields, uint8_t *out, uint32_t *words, unsigned lane,
				  uint32_t value, uint32_t bits)
{
	uint64_t acc = fields->acc[lane] | (uint64_t)value << fields->bits[lane];
	uint32_t filled = fields->bits[lane] + bits;
	uint32_t over = (32 - filled) >> 31; /* 1 when more than 32: no branch, and no byte of a register */

	tpd_put_u32(out + (size_t)4 * fields->place[lane], (uint32_t)acc);
	fields->place[lane] += (*words - fields->place[lane]) & (0u - over);
	*words += over;
	fields->acc[lane] = acc >> (over << 5);
	fields->bits[lane] = filled - (over << 5);
}

/* A round: one field for each lane. */
static inline void tpd_fields_push(struct tpd_fields_out *fields, const uint32_t values[TPD_LANES],
				   const uint32_t bits[TPD_LANES])
{
	uint8_t *out = fields->out;
	uint32_t words = fields->words; /* locals: the byte stores below could otherwise change them */

	for (unsigned lane = 0; lane < TPD_LANES; lane++)
		tpd_fields_put(fields, out, &words, lane, values[lane], bits[lane]);
	fields->words = words;
}

static inline void tpd_fields_push_one(struct tpd_fields_out *fields, unsigned lane, uint32_t value, uint32_t bits)
{
	tpd_fields_put(fields, fields->out, &fields->words, lane, value, bits);
}

/* Bytes of the finished stream, its count included. */
static inline size_t tpd_fields_finish(struct tpd_fields_out *fields)
{
	for (unsigned lane = 0; lane < TPD_LANES; lane++)
		tpd_put_u32(fields->out + (size_t)4 * fields->place[lane], (uint32_t)fields->acc[lane]);
	tpd_put_u32(fields->out, fields->words - 1);
	return (size_t)4 * fields->words;
}

struct tpd_fields_in {
	uint32_t acc[TPD_LANES];  /* the queue */
	uint32_t bits[TPD_LANES]; /* its length, below 32 between two fields */
	const uint8_t *next;      /* the next word; past `end` after a round that failed, and then still inside tail */
	const uint8_t *end;
	bool in_tail;
	uint8_t tail[2 * 4 * TPD_LANES]; /* the last words, followed by zeros, so that a round may overrun */
};

static inline void tpd_fields_open(struct tpd_fields_in *fields, const uint8_t *words, size_t len)
{
	memset(fields->acc, 0, sizeof fields->acc);
	memset(fields->bits, 0, sizeof fields->bits);
	fields->next = words;
	fields->end = words + len;
	fields->in_tail = false;
}

/* Before a round of at most 16 pulls: makes sure that reading 16 words stays inside memory. */
static inline void tpd_fields_prepare(struct tpd_fields_in *fields)
{
	size_t left = (size_t)(fields->end - fields->next);

	if (left >= 4 * TPD_LANES || fields->in_tail)
		return;
	memset(fields->tail, 0, sizeof fields->tail);
	if (left > 0)
		memcpy(fields->tail, fields->next, left);
	fields->next = fields->tail;
	fields->end = fields->tail + left;
	fields->in_tail = true;
}

static inline uint32_t tpd_fields_get(struct tpd_fields_in *fields, const uint8_t **next, unsigned lane, uint32_t bits)
{
	uint32_t need = (fields->bits[lane] - bits) >> 31; /* 1 when there are fewer */
	uint32_t word = tpd_get_u32(*next) & (0u - need);
	uint64_t acc = (uint64_t)word << fields->bits[lane] | fields->acc[lane];

	*next += (size_t)need << 2;
	fields->bits[lane] = fields->bits[lane] + (need << 5) - bits;
	fields->acc[lane] = (uint32_t)(acc >> bits);
	return (uint32_t)(acc & ((UINT64_C(1) << bits) - 1));
}

/* A round: one field of each lane; bits 0 .. 32.  false: it read words that are not there. */
static inline bool tpd_fields_pull(struct tpd_fields_in *fields, const uint32_t bits[TPD_LANES],
				   uint32_t values[TPD_LANES])
{
	const uint8_t *next;

	tpd_fields_prepare(fields);
	next = fields->next;
	for (unsigned lane = 0; lane < TPD_LANES; lane++)
		values[lane] = tpd_fields_get(fields, &next, lane, bits[lane]);
	fields->next = next;
	return next <= fields->end;
}

static inline bool tpd_fields_pull_one(struct tpd_fields_in *fields, unsigned lane, uint32_t bits, uint32_t *out_value)
{
	tpd_fields_prepare(fields);
	*out_value = tpd_fields_get(fields, &fields->next, lane, bits);
	return fields->next <= fields->end;
}

/* At the end: all words used, nothing but zeros left in the queues. */
static inline bool tpd_fields_done(const struct tpd_fields_in *fields)
{
	uint32_t left = 0;

	for (unsigned lane = 0; lane < TPD_LANES; lane++)
		left |= fields->acc[lane];
	return fields->next == fields->end && left == 0;
}

/* --- streams as they stand in payloads (fields.c) --- */

struct tpd_codec;

/* From the count of words and the words themselves, as the kernels write them; returns the end of it. Not longer than that, but 5 bytes. */
uint8_t *tpd_fields_write(uint8_t *out, const uint8_t *stream);
/* The stream, which `left` bytes follow to the end of the payload, ready for kernels; the codec lends memory until it codes again. */
enum tpd_status tpd_fields_read(struct tpd_codec *codec, struct tpd_rd *rd, size_t left, struct tpd_fields_in *out_fields, struct tpd_err *err);

#endif
