/*
 * files.c - see files.h. Fixtures are built here from readable code; none is kept as bytes.
 */
#include "base/tpd.h"

#include "files.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

static char root[256];

const char *scratch_make(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(root, sizeof(root), "%s/tpd-test-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(root));
	return root;
}

static int remove_one(const char *path, const struct stat *st TPD_UNUSED, int kind TPD_UNUSED, struct FTW *ftw TPD_UNUSED)
{
	return remove(path);
}

void scratch_remove(void)
{
	nftw(root, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

const char *scratch(const char *fmt, ...)
{
	static char results[8][512];
	static unsigned next;
	char *out = results[next++ % 8];
	int len = snprintf(out, 512, "%s/", root);
	va_list args;

	va_start(args, fmt);
	vsnprintf(out + len, 512 - (size_t)len, fmt, args);
	va_end(args);
	return out;
}

void file_write(const char *path, const void *data, size_t len)
{
	FILE *file = fopen(path, "wb");

	ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
	ck_assert_uint_eq(fwrite(data, 1, len, file), len);
	ck_assert_int_eq(fclose(file), 0);
}

uint8_t *file_read(const char *path, size_t *out_len)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data;
	long len;

	ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
	fseek(file, 0, SEEK_END);
	len = ftell(file);
	rewind(file);
	data = malloc((size_t)len + 1);
	ck_assert_uint_eq(fread(data, 1, (size_t)len, file), (size_t)len);
	fclose(file);
	*out_len = (size_t)len;
	return data;
}

bool file_equal(const char *a, const char *b)
{
	size_t a_len, b_len;
	uint8_t *x = file_read(a, &a_len), *y = file_read(b, &b_len);
	bool same = a_len == b_len && memcmp(x, y, a_len) == 0;

	free(x);
	free(y);
	return same;
}

void file_flip(const char *path, uint64_t offset)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &byte, 1, (off_t)offset), 1);
	byte = (uint8_t)~byte;
	ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
	close(fd);
}

bool file_exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += 0x9E3779B97F4A7C15u); /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

double random_normal(uint64_t *state)
{
	double sum = 0;

	for (int i = 0; i < 12; i++)
		sum += (double)(random_next(state) >> 11) * 0x1p-53;
	return sum - 6;
}

/* n floats: weights of step 0, and for each step a move of about a thousandth. */
static void weights(float *out, size_t n, uint64_t step, uint64_t seed)
{
	uint64_t state = seed;

	for (size_t i = 0; i < n; i++)
		out[i] = (float)(0.05 * random_normal(&state));
	for (uint64_t s = 1; s <= step; s++) {
		state = seed + 1000 * s;
		for (size_t i = 0; i < n; i++)
			out[i] += (float)(0.00005 * random_normal(&state));
	}
}

static void put_f32(struct tpd_buf *buf, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;

		memcpy(&bits, &x[i], 4);
		tpd_buf_u32(buf, bits);
	}
}

static void put_bf16(struct tpd_buf *buf, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits;

		memcpy(&bits, &x[i], 4);
		tpd_buf_u16(buf, (uint16_t)(bits >> 16));
	}
}

#define N_A (300u * 256u)
#define N_B 1000u
#define N_C 200000u

void checkpoint_make(const char *dir, uint64_t step, uint64_t seed)
{
	static float x[N_C];
	struct tpd_buf header = {0}, file = {0};
	char path[600];
	uint64_t moves = step / 10;

	mkdir(dir, 0755);
	tpd_buf_printf(&header,
		       "{\"layers.0.w\":{\"dtype\":\"F32\",\"shape\":[300,256],\"data_offsets\":[0,%u]},"
		       "\"layers.1.norm\":{\"dtype\":\"BF16\",\"shape\":[%u],\"data_offsets\":[%u,%u]},"
		       "\"head\":{\"dtype\":\"F32\",\"shape\":[%u],\"data_offsets\":[%u,%u]},"
		       "\"ids\":{\"dtype\":\"I64\",\"shape\":[9],\"data_offsets\":[%u,%u]}}",
		       4 * N_A, N_B, 4 * N_A, 4 * N_A + 2 * N_B, N_C, 4 * N_A + 2 * N_B, 4 * N_A + 2 * N_B + 4 * N_C,
		       4 * N_A + 2 * N_B + 4 * N_C, 4 * N_A + 2 * N_B + 4 * N_C + 72);
	tpd_buf_u64(&file, header.len);
	tpd_buf_put(&file, header.data, header.len);
	weights(x, N_A, moves, seed);
	put_f32(&file, x, N_A);
	weights(x, N_B, moves, seed + 1);
	put_bf16(&file, x, N_B);
	weights(x, N_C, moves, seed + 2);
	put_f32(&file, x, N_C);
	for (uint64_t i = 0; i < 9; i++)
		tpd_buf_u64(&file, i * 7 + step);
	snprintf(path, sizeof(path), "%s/model.safetensors", dir);
	file_write(path, file.data, file.len);

	file.len = 0;
	weights(x, 50000, moves, seed + 3);
	put_f32(&file, x, 50000);
	tpd_buf_u8(&file, 1); /* an odd size */
	snprintf(path, sizeof(path), "%s/optimizer.pt", dir);
	file_write(path, file.data, file.len);

	file.len = 0;
	tpd_buf_printf(&file, "{\"epoch\": 0.5, \"global_step\": %llu, \"log_history\": []}", (unsigned long long)step);
	snprintf(path, sizeof(path), "%s/trainer_state.json", dir);
	file_write(path, file.data, file.len);
	tpd_buf_release(&header);
	tpd_buf_release(&file);
}
