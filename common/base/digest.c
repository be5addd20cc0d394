/*
 * digest.c - XXH3 by libxxhash, SHA-256 by libcrypto, and hex.
 *
 * A running SHA-256 goes through EVP, which picks the CPU's SHA instructions.
 * Everything in it that can run out of memory happens in tpd_sha256_new(), so
 * that update and final need no status.  tpd_sha256_once() has no way to tell
 * of a lack of memory at all; it uses the three older calls, which need none
 * (EVP's own one-shot function allocates a context each time).
 */
#define OPENSSL_SUPPRESS_DEPRECATED 1 /* SHA256_Init and its two sisters, see above */
#include "base/tpd.h"

#include "base/digest.h"

#include <assert.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct tpd_sha256 {
	EVP_MD_CTX *context;
};

void tpd_xxh128(const void *data, size_t len, uint8_t out_digest[TPD_XXH_LEN])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, len));
	static_assert(sizeof canonical.digest == TPD_XXH_LEN, "XXH3-128 has 16 bytes");
	for (size_t i = 0; i < TPD_XXH_LEN; i++)
		out_digest[i] = canonical.digest[i];
}

void tpd_xxh128_first(const void *data, size_t len, uint8_t *out_digest, size_t size)
{
	uint8_t digest[TPD_XXH_LEN];

	assert(size <= sizeof digest);
	tpd_xxh128(data, len, digest);
	memcpy(out_digest, digest, size);
}

uint64_t tpd_xxh64(const void *data, size_t len)
{
	return XXH3_64bits(data, len);
}

struct tpd_sha256 *tpd_sha256_new(void)
{
	struct tpd_sha256 *sha = calloc(1, sizeof *sha);

	if (!sha)
		return NULL;
	sha->context = EVP_MD_CTX_new();
	if (!sha->context || EVP_DigestInit_ex(sha->context, EVP_sha256(), NULL) != 1) {
		tpd_sha256_free(sha);
		return NULL;
	}
	return sha;
}

void tpd_sha256_free(struct tpd_sha256 *sha)
{
	if (!sha)
		return;
	EVP_MD_CTX_free(sha->context);
	free(sha);
}

void tpd_sha256_update(struct tpd_sha256 *sha, const void *data, size_t len)
{
	int done = len ? EVP_DigestUpdate(sha->context, data, len) : 1;

	assert(done == 1);
	(void)done;
}

void tpd_sha256_final(struct tpd_sha256 *sha, uint8_t out_digest[TPD_SHA256_LEN])
{
	int done = EVP_DigestFinal_ex(sha->context, out_digest, NULL);

	assert(done == 1);
	done = EVP_DigestInit_ex(sha->context, NULL, NULL); /* the same kind again: nothing is allocated */
	assert(done == 1);
	(void)done;
}

void tpd_sha256_once(const void *data, size_t len, uint8_t out_digest[TPD_SHA256_LEN])
{
	SHA256_CTX context;

	SHA256_Init(&context);
	if (len)
		SHA256_Update(&context, data, len);
	SHA256_Final(out_digest, &context);
}

void tpd_hex(const uint8_t *data, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[data[i] >> 4];
		*out++ = digits[data[i] & 15];
	}
	*out = 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool tpd_unhex(const char *hex, uint8_t *out, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		int high = hex_digit(hex[0]), low = high < 0 ? -1 : hex_digit(hex[1]);

		if (low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
		hex += 2;
	}
	return *hex == 0;
}
