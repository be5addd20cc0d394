/*
 * codec_speed.c - ratio and speed of the codec on real files: in memory, one thread, no store around it.
 *
 *     codec_speed [--passes N] [--threads N] [--tensors] [--types FIRST] [--low-rank] [--INPUT FILE]... [REFERENCE] NEW
 *
 * Both files are read and parsed, and their tensors are matched by name and coded as an ingest would code them: the
 * same types, samples, plans, chunks and references (speed_job.c), hence the same bytes, but for the 32 a chunk that
 * the store's index takes. FIRST is the file that the chain began with (else REFERENCE): storages whose format tells
 * no type have the one that they looked like there. INPUT is one of w0, m1, v1, m2, v2: what weights are predicted
 * from, as F32 in files whose tensors have the weights' names; with none of them no weights are predicted. Moments are found by
 * their names ("0.exp_avg" and "0.exp_avg_sq"), and exp_avg is scaled by the exp_avg_sq beside it.
 *
 * Every pass does the whole work in three phases (choose, encode, decode), a fourth that makes each payload again
 * without decoding and comparing it, or trying another encoding, to show what those cost, and then what stands beside
 * it: statistics (of chunks just read, as the store makes them, and from memory), the bare encoding of chunks just read,
 * digests, and on the same bytes Zstandard at level 3 (one frame of the whole file) and memcpy. A time
 * is the median of all passes. It is CPU time, so that others on the machine do not make it longer; wall time stands
 * beside it, and is what counts where --threads asks for the same with several. Rejected: a sum of the fastest chunks,
 * which no run ever sees.
 *
 * It prints one JSON object. What is decoded must equal the file, or it fails.
 */
#include "base/tpd.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/pool.h"
#include "codec/internal.h"
#include "tools/bench/speed_job.h"

#define PASSES_DEFAULT 5u
#define PASSES_MAX 99u

double speed_seconds(bool cpu)
{
	struct timespec t;

	clock_gettime(cpu ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct speed_time speed_now(void)
{
	return (struct speed_time){.cpu = speed_seconds(true), .wall = speed_seconds(false)};
}

/* --- the passes --- */

/* One phase over all chunks. Their own time is counted twice: in total and for their encoding. */
static enum tpd_status run_chunks(struct speed_job *job, enum speed_phase phase, size_t pass, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t c = 0; !status && c < job->chunk_count; c++) {
		struct speed_chunk *chunk = &job->chunks[c];
		double wall = speed_seconds(false), cpu = speed_seconds(true);

		switch (phase) {
		case SPEED_ENCODE:
			status = tpd_encode_chunk(job->codec, &job->tensors[chunk->tensor].plan, &chunk->in, chunk->payload,
						  &chunk->encoding, &chunk->payload_len, err);
			break;
		case SPEED_ENCODE_UNCHECKED:
			status = speed_encode_unchecked(job->codec, job, chunk, err);
			break;
		default:
			status = speed_decode(job->codec, job, chunk, job->decoded, err);
			break;
		}
		cpu = speed_seconds(true) - cpu;
		job->wall[phase][pass] += speed_seconds(false) - wall;
		job->cpu[phase][pass] += cpu;
		job->by_encoding[chunk->encoding][phase][pass] += cpu;
		if (!status && phase == SPEED_DECODE && memcmp(job->decoded, chunk->in.x, chunk->in.len) != 0)
			status = tpd_fail(err, TPD_CORRUPT, "'%s' did not come back as it was", job->tensors[chunk->tensor].name);
	}
	return status;
}

static enum tpd_status run_pass(struct speed_job *job, size_t pass, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (unsigned phase = 0; !status && phase < SPEED_PHASES; phase++) {
		const struct speed_time start = speed_now();
		struct speed_time end;

		if (phase >= SPEED_ENCODE && phase <= SPEED_DECODE) {
			status = run_chunks(job, (enum speed_phase)phase, pass, err);
			continue;
		}
		job->aside = (struct speed_time){0};
		status = phase == SPEED_CHOOSE ? speed_choose_all(job, err) : speed_beside(job, (enum speed_phase)phase, err);
		end = speed_now();
		job->cpu[phase][pass] = end.cpu - start.cpu - job->aside.cpu;
		job->wall[phase][pass] = end.wall - start.wall - job->aside.wall;
	}
	return status;
}

/* --- the report --- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void put_u64(struct tpd_json_out *out, const char *key, uint64_t v)
{
	tpd_json_key(out, key);
	tpd_json_put_u64(out, v);
}

static void put_f64(struct tpd_json_out *out, const char *key, double v)
{
	tpd_json_key(out, key);
	tpd_json_put_f64(out, v);
}

static void put_string(struct tpd_json_out *out, const char *key, const char *s)
{
	tpd_json_key(out, key);
	tpd_json_put_string(out, s);
}

/* 10^6 bytes a second; null where nothing was measured. */
static void put_speed(struct tpd_json_out *out, const char *key, uint64_t bytes, double time)
{
	tpd_json_key(out, key);
	if (time > 0 && bytes > 0)
		tpd_json_put_f64(out, (double)bytes / time / 1e6);
	else
		tpd_json_put_null(out);
}

/* by_encoding: what is not the codec's was not measured for each. */
static void put_speeds(struct tpd_json_out *out, const char *key, double *const times[SPEED_PHASES], size_t passes, uint64_t bytes,
		       bool by_encoding)
{
	double t[SPEED_PHASES];

	for (unsigned phase = 0; phase < SPEED_PHASES; phase++)
		t[phase] = median(times[phase], passes);
	tpd_json_key(out, key);
	tpd_json_begin_object(out);
	put_speed(out, "encode_MBps", bytes, t[SPEED_ENCODE]); /* the chunks, each decoded and compared */
	put_speed(out, "encode_unchecked_MBps", bytes, t[SPEED_ENCODE_UNCHECKED]);
	put_speed(out, "decode_MBps", bytes, t[SPEED_DECODE]);
	if (!by_encoding) {
		put_speed(out, "choose_and_encode_MBps", bytes, t[SPEED_CHOOSE] + t[SPEED_ENCODE]);
		put_f64(out, "choose_seconds", t[SPEED_CHOOSE]);
		put_speed(out, "statistics_MBps", bytes, t[SPEED_STATISTICS]);
		put_speed(out, "encode_read_MBps", bytes, t[SPEED_ENCODE_READ]); /* the bare encoding, of the same chunks just read */
		put_speed(out, "statistics_from_memory_MBps", bytes, t[SPEED_STATISTICS_AFAR]);
		put_speed(out, "chunk_digests_MBps", bytes, t[SPEED_CHUNK_DIGESTS]);
		put_speed(out, "sha256_MBps", bytes, t[SPEED_FILE_DIGEST]);
		put_speed(out, "zstd3_encode_MBps", bytes, t[SPEED_ZSTD_ENCODE]);
		put_speed(out, "zstd3_decode_MBps", bytes, t[SPEED_ZSTD_DECODE]);
		put_speed(out, "memcpy_MBps", bytes, t[SPEED_MEMCPY]);
	}
	tpd_json_end_object(out);
}

static void put_encodings(struct tpd_json_out *out, struct speed_job *job)
{
	tpd_json_key(out, "encodings");
	tpd_json_begin_object(out);
	for (unsigned e = 0; e < TPD_ENCODING_COUNT; e++) {
		uint64_t chunks = 0, in = 0, payload = 0, planned = 0;
		double ideal = 0;

		for (size_t c = 0; c < job->chunk_count; c++)
			if (job->chunks[c].encoding == (enum tpd_encoding)e) {
				chunks++;
				in += job->chunks[c].in.len;
				payload += job->chunks[c].payload_len;
				ideal = ideal < 0 || job->chunks[c].ideal < 0 ? -1 : ideal + job->chunks[c].ideal;
			}
		for (size_t t = 0; t < job->tensor_count; t++)
			planned += job->tensors[t].plan.encoding == (enum tpd_encoding)e;
		if (chunks == 0 && planned == 0)
			continue;
		tpd_json_key(out, tpd_encoding_name((enum tpd_encoding)e));
		tpd_json_begin_object(out);
		put_u64(out, "tensors_planned", planned);
		put_u64(out, "chunks", chunks);
		put_u64(out, "bytes_in", in);
		put_u64(out, "bytes_out", payload);
		tpd_json_key(out, "ideal"); /* of bytes_out; null: its symbols are not ours, or it never came */
		if (ideal >= 0 && chunks > 0)
			tpd_json_put_f64(out, ideal);
		else
			tpd_json_put_null(out);
		put_f64(out, "share", (double)in / (double)job->x.size);
		put_speeds(out, "cpu", job->by_encoding[e], job->passes, in, true);
		tpd_json_end_object(out);
	}
	tpd_json_end_object(out);
}

static void put_tensors(struct tpd_json_out *out, const struct speed_job *job)
{
	tpd_json_key(out, "tensors");
	tpd_json_begin_array(out);
	for (size_t t = 0; t < job->tensor_count; t++) {
		const struct speed_tensor *tensor = &job->tensors[t];

		tpd_json_begin_object(out);
		put_string(out, "name", tensor->name);
		put_string(out, "dtype", tpd_dtype_name(tensor->dtype));
		put_u64(out, "row", tensor->row);
		put_string(out, "planned", tpd_encoding_name(tensor->plan.encoding));
		put_u64(out, "grid_bias", tensor->plan.grid_bias);
		put_u64(out, "bytes_in", tensor->len);
		put_u64(out, "bytes_out", tensor->out);
		tpd_json_end_object(out);
	}
	tpd_json_end_array(out);
}

static void put_threads(struct tpd_json_out *out, const struct speed_job *job, unsigned threads, struct speed_threads *found)
{
	static const char *const names[2][2] = {{"one_encode_MBps", "all_encode_MBps"}, {"one_decode_MBps", "all_decode_MBps"}};
	double times[2][2][PASSES_MAX];

	for (size_t pass = 0; pass < job->passes; pass++)
		for (unsigned what = 0; what < 2; what++) {
			times[what][0][pass] = found[pass].one[what];
			times[what][1][pass] = found[pass].all[what];
		}
	tpd_json_key(out, "wall_by_threads");
	tpd_json_begin_object(out);
	put_u64(out, "threads", threads);
	for (unsigned what = 0; what < 2; what++)
		for (unsigned all = 0; all < 2; all++)
			put_speed(out, names[what][all], job->x.size, median(times[what][all], job->passes));
	tpd_json_end_object(out);
}

static enum tpd_status report(struct speed_job *job, bool tensors, unsigned threads, struct speed_threads *by_threads, struct tpd_err *err)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	uint64_t payload = 0;
	const char *use = NULL, *proof = NULL, *broken = NULL;
	enum tpd_status status = tpd_codec_forms(&use, &proof, &broken, err);

	if (status)
		return status;
	for (size_t c = 0; c < job->chunk_count; c++) {
		payload += job->chunks[c].payload_len;
		job->tensors[job->chunks[c].tensor].out += job->chunks[c].payload_len;
	}
	tpd_json_begin_object(&out);
	put_string(&out, "file", job->x.path);
	put_string(&out, "reference", job->has_p ? job->p.path : NULL);
	put_string(&out, "format", tpd_format_kind_name(job->x.layout.kind));
	put_u64(&out, "tensors_found", job->x.layout.count);
	put_u64(&out, "passes", job->passes);
	put_u64(&out, "bytes_in", job->x.size);
	put_u64(&out, "bytes_out", payload);
	put_f64(&out, "ratio", payload > 0 ? (double)job->x.size / (double)payload : 0);
	put_u64(&out, "mismatches", tpd_codec_mismatches(job->codec));
	put_string(&out, "form", use);
	put_u64(&out, "zstd3_bytes", job->packed_len);
	put_speeds(&out, "cpu", job->cpu, job->passes, job->x.size, false);
	put_speeds(&out, "wall", job->wall, job->passes, job->x.size, false);
	if (threads > 1)
		put_threads(&out, job, threads, by_threads);
	put_encodings(&out, job);
	if (tensors)
		put_tensors(&out, job);
	tpd_json_end_object(&out);
	tpd_buf_u8(&buf, '\n');
	status = tpd_buf_status(&buf, err);
	if (!status && (fwrite(buf.data, 1, buf.len, stdout) != buf.len || fflush(stdout) != 0))
		status = tpd_fail(err, TPD_IO, "cannot write the result");
	tpd_buf_release(&buf);
	return status;
}

/* "w0", "m1", ... in the order of enum tpd_input. */
#define INPUT_OPTION 256

int main(int argc, char **argv)
{
	static const struct option options[] = {{"passes", required_argument, NULL, 'n'},
						{"threads", required_argument, NULL, 'j'},
						{"tensors", no_argument, NULL, 't'},
						{"types", required_argument, NULL, 'f'},
						{"low-rank", no_argument, NULL, 'l'},
						{"w0", required_argument, NULL, INPUT_OPTION + TPD_INPUT_W0},
						{"m1", required_argument, NULL, INPUT_OPTION + TPD_INPUT_M1},
						{"v1", required_argument, NULL, INPUT_OPTION + TPD_INPUT_V1},
						{"m2", required_argument, NULL, INPUT_OPTION + TPD_INPUT_M2},
						{"v2", required_argument, NULL, INPUT_OPTION + TPD_INPUT_V2},
						{0}};
	struct speed_job job = {.passes = PASSES_DEFAULT};
	struct speed_threads by_threads[PASSES_MAX] = {0};
	struct tpd_err err = {0};
	enum tpd_status status = TPD_OK;
	const char *first = NULL;
	unsigned long threads = 1;
	bool tensors = false, usage = false;

	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'n')
			job.passes = strtoul(optarg, NULL, 10);
		else if (option == 'j')
			threads = strtoul(optarg, NULL, 10);
		else if (option == 't')
			tensors = true;
		else if (option == 'f')
			first = optarg;
		else if (option == 'l')
			job.low_rank = true;
		else if (option >= INPUT_OPTION)
			job.input_path[option - INPUT_OPTION] = optarg;
		else
			usage = true;
	}
	if (usage || argc - optind < 1 || argc - optind > 2 || job.passes < 1 || job.passes > PASSES_MAX || threads < 1 ||
	    threads > TPD_POOL_MAX) {
		fprintf(stderr, "usage: codec_speed [--passes N] [--threads N] [--tensors] [--types FIRST] [--low-rank] [--w0|m1|v1|m2|v2 FILE]... "
				"[REFERENCE] NEW\n");
		return 2;
	}
	job.has_p = argc - optind == 2;
	job.has_first = first != NULL;
	status = speed_file_open(argv[argc - 1], &job.x, &err);
	if (!status && job.has_p)
		status = speed_file_open(argv[optind], &job.p, &err);
	if (!status && job.has_first)
		status = speed_file_open(first, &job.first, &err);
	for (unsigned i = 0; !status && i < TPD_INPUT_COUNT; i++)
		if (job.input_path[i])
			status = speed_file_open(job.input_path[i], &job.input[i], &err);
	if (!status && job.x.size == 0)
		status = tpd_fail(&err, TPD_USAGE, "'%s' is empty", job.x.path);
	if (!status)
		status = speed_job_prepare(&job, &err);
	for (size_t pass = 0; !status && pass < job.passes; pass++)
		status = run_pass(&job, pass, &err);
	for (size_t pass = 0; !status && threads > 1 && pass < job.passes; pass++)
		status = speed_on_threads(&job, (unsigned)threads, &by_threads[pass], &err);
	if (!status)
		status = speed_ideals(&job, &err);
	if (!status)
		status = report(&job, tensors, (unsigned)threads, by_threads, &err);
	speed_job_release(&job);
	if (status)
		fprintf(stderr, "codec_speed: %s\n", err.text);
	return status ? 1 : 0;
}
