/*
 * zstd.c - all use of libzstd, by its stable interface alone.
 *
 * libzstd's one-pass decoder accepts more than the format allows (any window, skippable and legacy frames, several
 * frames in a row), so the frame's header is read here first, RFC 8878 section 3.1.1.1.  Parameters are fixed: one
 * thread, no checksum (the store has its own), content size always written.
 */
#include "base/tpd.h"

#include <assert.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "codec/internal.h"

#define FRAME_MAGIC 0xfd2fb528u
#define PACK_LEVEL 3

struct tpd_zstd {
	ZSTD_CCtx *encoder; /* made at first use: a reader of a store needs none */
	ZSTD_DCtx *decoder;
};

enum tpd_status tpd_zstd_new(struct tpd_zstd **out_zstd, struct tpd_err *err)
{
	struct tpd_zstd *zstd = calloc(1, sizeof *zstd);

	if (!zstd)
		return tpd_fail_nomem(err);
	zstd->decoder = ZSTD_createDCtx();
	if (!zstd->decoder) {
		free(zstd);
		return tpd_fail_nomem(err);
	}
	*out_zstd = zstd;
	return TPD_OK;
}

void tpd_zstd_free(struct tpd_zstd *zstd)
{
	if (!zstd)
		return;
	ZSTD_freeCCtx(zstd->encoder);
	ZSTD_freeDCtx(zstd->decoder);
	free(zstd);
}

static enum tpd_status compress(ZSTD_CCtx *encoder, int level, const uint8_t *ref, size_t ref_len, const uint8_t *data,
				size_t len, uint8_t *out, size_t cap, size_t *out_len, struct tpd_err *err)
{
	size_t result;

	ZSTD_CCtx_reset(encoder, ZSTD_reset_session_and_parameters);
	result = ZSTD_CCtx_setParameter(encoder, ZSTD_c_compressionLevel, level);
	if (!ZSTD_isError(result) && ref_len > 0)
		result = ZSTD_CCtx_setParameter(encoder, ZSTD_c_windowLog, TPD_ZSTD_WINDOW_LOG);
	if (!ZSTD_isError(result) && ref_len > 0) /* matches as far away as the reference is long */
		result = ZSTD_CCtx_setParameter(encoder, ZSTD_c_enableLongDistanceMatching, 1);
	if (!ZSTD_isError(result) && ref_len > 0)
		result = ZSTD_CCtx_refPrefix(encoder, ref, ref_len);
	if (!ZSTD_isError(result))
		result = ZSTD_compress2(encoder, out, cap, data, len);
	if (ZSTD_isError(result)) {
		if (ZSTD_getErrorCode(result) == ZSTD_error_dstSize_tooSmall) {
			*out_len = SIZE_MAX;
			return TPD_OK;
		}
		return tpd_fail(err, TPD_NOMEM, "Zstandard cannot compress: %s", ZSTD_getErrorName(result));
	}
	*out_len = result;
	return TPD_OK;
}

enum tpd_status tpd_zstd_encode(struct tpd_zstd *zstd, int level, const uint8_t *ref, size_t ref_len,
				const uint8_t *data, size_t len, uint8_t *out, size_t cap, size_t *out_len,
				struct tpd_err *err)
{
	if (!zstd->encoder)
		zstd->encoder = ZSTD_createCCtx();
	if (!zstd->encoder)
		return tpd_fail_nomem(err);
	return compress(zstd->encoder, level, ref, ref_len, data, len, out, cap, out_len, err);
}

/* The window that a frame asks for; false: no frame begins here. */
static bool frame_window(const uint8_t *frame, size_t len, uint64_t *out_window)
{
	static const uint8_t dictionary_bytes[4] = {0, 1, 2, 4}, size_bytes[4] = {0, 2, 4, 8};
	struct tpd_rd rd = tpd_rd_make(frame, len);
	bool magic = tpd_rd_u32(&rd) == FRAME_MAGIC;
	uint8_t descriptor = tpd_rd_u8(&rd), window = 0;
	bool single = descriptor & 0x20;
	unsigned size_len = size_bytes[descriptor >> 6];
	uint64_t size = 0;

	if (!single)
		window = tpd_rd_u8(&rd);
	if (single && size_len == 0)
		size_len = 1;
	tpd_rd_bytes(&rd, dictionary_bytes[descriptor & 3]);
	for (unsigned i = 0; i < size_len; i++)
		size |= (uint64_t)tpd_rd_u8(&rd) << 8 * i;
	if (size_len == 2)
		size += 256;
	if (!magic || !tpd_rd_ok(&rd) || descriptor & 0x08)
		return false;
	if (single)
		*out_window = size;
	else
		*out_window = (UINT64_C(1) << (10 + (window >> 3))) / 8 * (8 + (window & 7));
	return true;
}

static enum tpd_status decompress(ZSTD_DCtx *decoder, const uint8_t *ref, size_t ref_len, const uint8_t *frame,
				  size_t frame_len, uint8_t *out, size_t len, struct tpd_err *err)
{
	uint64_t window;
	size_t result;

	if (!frame_window(frame, frame_len, &window))
		return tpd_fail(err, TPD_CORRUPT, "not a Zstandard frame");
	if (window > UINT64_C(1) << TPD_ZSTD_WINDOW_LOG)
		return tpd_fail(err, TPD_CORRUPT, "a Zstandard frame with a window of %llu bytes",
				(unsigned long long)window);
	result = ZSTD_findFrameCompressedSize(frame, frame_len);
	if (ZSTD_isError(result) || result != frame_len)
		return tpd_fail(err, TPD_CORRUPT, "a Zstandard frame does not end where it must");
	ZSTD_DCtx_reset(decoder, ZSTD_reset_session_and_parameters);
	if (ref_len > 0) {
		result = ZSTD_DCtx_refPrefix(decoder, ref, ref_len);
		if (ZSTD_isError(result))
			return tpd_fail(err, TPD_NOMEM, "Zstandard: %s", ZSTD_getErrorName(result));
	}
	result = ZSTD_decompressDCtx(decoder, out, len, frame, frame_len);
	if (ZSTD_isError(result)) {
		if (ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation)
			return tpd_fail_nomem(err);
		return tpd_fail(err, TPD_CORRUPT, "Zstandard: %s", ZSTD_getErrorName(result));
	}
	if (result != len)
		return tpd_fail(err, TPD_CORRUPT, "a Zstandard frame holds %zu bytes, not %zu", result, len);
	return TPD_OK;
}

enum tpd_status tpd_zstd_decode(struct tpd_zstd *zstd, const uint8_t *ref, size_t ref_len, const uint8_t *frame,
				size_t frame_len, uint8_t *out, size_t len, struct tpd_err *err)
{
	return decompress(zstd->decoder, ref, ref_len, frame, frame_len, out, len, err);
}

enum tpd_status tpd_zstd_pack(const void *data, size_t len, uint8_t **out, size_t *out_len, struct tpd_err *err)
{
	ZSTD_CCtx *encoder = ZSTD_createCCtx();
	size_t cap = ZSTD_compressBound(len), frame_len = 0;
	TPD_AUTO_FREE uint8_t *frame = encoder ? malloc(cap) : NULL;
	enum tpd_status status;

	if (frame)
		status = compress(encoder, PACK_LEVEL, NULL, 0, data, len, frame, cap, &frame_len, err);
	else
		status = tpd_fail_nomem(err);
	ZSTD_freeCCtx(encoder);
	if (status != TPD_OK)
		return status;
	assert(frame_len != SIZE_MAX);
	*out = frame;
	*out_len = frame_len;
	frame = NULL;
	return TPD_OK;
}

enum tpd_status tpd_zstd_unpack(const void *frame, size_t frame_len, uint8_t *out, size_t len, struct tpd_err *err)
{
	ZSTD_DCtx *decoder = ZSTD_createDCtx();
	enum tpd_status status;

	if (!decoder)
		return tpd_fail_nomem(err);
	status = decompress(decoder, NULL, 0, frame, frame_len, out, len, err);
	ZSTD_freeDCtx(decoder);
	return status;
}
