/*
 * digest.h - the two digests of the project.
 *
 * XXH3-128 (libxxhash, canonical big-endian byte order as its authors print
 * it) guards chunks and records against accidents; SHA-256 (OpenSSL's
 * libcrypto, which uses the CPU's SHA instructions) names files and
 * checkpoints, so that `sha256sum` can be compared with our record.
 */
#ifndef TPD_BASE_DIGEST_H
#define TPD_BASE_DIGEST_H

#include "base/tpd.h"

#define TPD_XXH_LEN 16
#define TPD_SHA256_LEN 32
#define TPD_SHA256_HEX 65 /* with the final zero */

/* XXH3-128, seed 0. */
void tpd_xxh128(const void *data, size_t len, uint8_t out_digest[TPD_XXH_LEN]);
/* The first `size` bytes of that, at most TPD_XXH_LEN. */
void tpd_xxh128_first(const void *data, size_t len, uint8_t *out_digest, size_t size);
/* XXH3-64, seed 0: for comparisons in memory only, never on disk. */
uint64_t tpd_xxh64(const void *data, size_t len);

struct tpd_sha256; /* one running SHA-256; not for two threads at once */
struct tpd_sha256 *tpd_sha256_new(void); /* NULL: out of memory */
void tpd_sha256_free(struct tpd_sha256 *sha);
void tpd_sha256_update(struct tpd_sha256 *sha, const void *data, size_t len);
/* Also makes it ready for the next message. */
void tpd_sha256_final(struct tpd_sha256 *sha, uint8_t out_digest[TPD_SHA256_LEN]);
void tpd_sha256_once(const void *data, size_t len, uint8_t out_digest[TPD_SHA256_LEN]);

/* Lower-case hex with a final zero; out holds 2 * len + 1. */
void tpd_hex(const uint8_t *data, size_t len, char *out);
/* The reverse: exactly 2 * len hex digits, else false. */
bool tpd_unhex(const char *hex, uint8_t *out, size_t len);

#endif
