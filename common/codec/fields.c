/*
 * fields.c - the remainder stream B as it stands in a payload (SPEC.md section 4): of a short one the last words, of which the upper bytes
 * are mostly empty, take as many bytes as they need. The kernels know of whole words only.
 */
#include "base/tpd.h"

#include "codec/fields.h"

#include "codec/internal.h"

#define SHORT_FLAG (UINT32_C(1) << 31)
#define SHORT_WORDS 20u      /* so many at the end are told short: where most of the 16 lanes end */
#define SHORT_MAX 2048u      /* words: longer streams gain nothing that counts, and would have to be copied */
#define LENGTHS_A_BYTE 4u

static unsigned bytes_of(uint32_t word)
{
	return 1u + (word >= 1u << 8) + (word >= 1u << 16) + (word >= 1u << 24);
}

uint8_t *tpd_fields_write(uint8_t *out, const uint8_t *stream)
{
	const uint32_t count = tpd_get_u32(stream), last = TPD_MIN(count, SHORT_WORDS);
	const uint8_t *words = stream + 4, *at = words + (size_t)4 * (count - last);
	uint8_t *lengths;

	if (count == 0 || count > SHORT_MAX) {
		memcpy(out, stream, 4 + (size_t)4 * count);
		return out + 4 + (size_t)4 * count;
	}
	tpd_put_u32(out, count | SHORT_FLAG);
	lengths = out + 4;
	out = lengths + (last + LENGTHS_A_BYTE - 1) / LENGTHS_A_BYTE;
	memset(lengths, 0, (size_t)(out - lengths));
	memcpy(out, words, (size_t)(at - words));
	out += at - words;
	for (uint32_t i = 0; i < last; i++, at += 4) {
		const unsigned len = bytes_of(tpd_get_u32(at));

		lengths[i / LENGTHS_A_BYTE] |= (uint8_t)((len - 1) << 2 * (i % LENGTHS_A_BYTE));
		memcpy(out, at, len);
		out += len;
	}
	return out;
}

/* The words of a stream told short, as they are, in the codec's scratch. */
static enum tpd_status expand(struct tpd_codec *codec, struct tpd_rd *rd, uint32_t count, const uint8_t **out_words, struct tpd_err *err)
{
	const uint32_t last = TPD_MIN(count, SHORT_WORDS);
	const uint8_t *lengths = tpd_rd_bytes(rd, (last + LENGTHS_A_BYTE - 1) / LENGTHS_A_BYTE);
	const uint8_t *words = tpd_rd_bytes(rd, (uint64_t)4 * (count - last));
	enum tpd_status status;
	uint8_t *at;

	if (!lengths || !words)
		return tpd_fail(err, TPD_CORRUPT, "fields: the payload is too short");
	status = tpd_scratch_need(&codec->fields, (size_t)4 * count + 1, err);
	if (status != TPD_OK)
		return status;
	*out_words = at = codec->fields.data;
	memcpy(at, words, (size_t)4 * (count - last));
	at += (size_t)4 * (count - last);
	for (uint32_t i = 0; i < last; i++, at += 4) {
		const unsigned len = 1 + (lengths[i / LENGTHS_A_BYTE] >> 2 * (i % LENGTHS_A_BYTE) & 3);
		const uint8_t *bytes = tpd_rd_bytes(rd, len);

		if (!bytes)
			return tpd_fail(err, TPD_CORRUPT, "fields: the payload is too short");
		memset(at, 0, 4);
		memcpy(at, bytes, len);
	}
	if (last % LENGTHS_A_BYTE > 0 && lengths[last / LENGTHS_A_BYTE] >> 2 * (last % LENGTHS_A_BYTE) != 0)
		return tpd_fail(err, TPD_CORRUPT, "fields: lengths of words that there are not");
	return TPD_OK;
}

enum tpd_status tpd_fields_read(struct tpd_codec *codec, struct tpd_rd *rd, size_t left, struct tpd_fields_in *out_fields, struct tpd_err *err)
{
	uint32_t count = tpd_rd_u32(rd);
	const uint8_t *words = NULL;
	enum tpd_status status = TPD_OK;

	if (count & SHORT_FLAG) {
		count &= ~SHORT_FLAG;
		if (count > SHORT_MAX)
			return tpd_fail(err, TPD_CORRUPT, "fields: too many to be told short");
		status = expand(codec, rd, count, &words, err);
	} else {
		words = tpd_rd_bytes(rd, (uint64_t)4 * count);
	}
	if (status != TPD_OK)
		return status;
	if (!words || tpd_rd_left(rd) != left)
		return tpd_fail(err, TPD_CORRUPT, "fields: the payload has the wrong length");
	tpd_fields_open(out_fields, words, (size_t)4 * count);
	return TPD_OK;
}
