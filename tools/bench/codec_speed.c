/*
 * codec_speed.c - ratio and speed of the codec on real files: in memory, one thread, no store around it.
 *
 *     codec_speed [--passes N] [--tensors] [--types FIRST] [REFERENCE] NEW
 *
 * Both files are read and parsed, and their tensors are matched by name and coded as an ingest would code them: the
 * same types, samples, plans, chunks and references (store/ingest_match.c, store/ingest_survey.c), hence the same
 * bytes, but for the 56 a chunk that the store's index takes. FIRST is the file that the chain began with (else
 * REFERENCE): storages whose format tells no type have the one that they looked like there. What is timed is the codec
 * alone: no digests, no statistics, no SHA-256, no disk.
 *
 * Every pass does the whole work in three phases (choose, encode, decode) and a fourth that makes each payload again
 * without decoding and comparing it, or trying another encoding, to show what those cost; a time is the median of all
 * passes. It is CPU time, so that others on the machine do not make it longer; wall time stands beside it. Rejected: a
 * sum of the fastest chunks, which no run ever sees.
 *
 * It prints one JSON object. What is decoded must equal the file, or it fails.
 */
#include "base/tpd.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/io.h"
#include "base/json.h"
#include "codec/codec.h"
#include "codec/internal.h"
#include "format/format.h"

#define PASSES_DEFAULT 5u
#define PASSES_MAX 99u
#define FILE_MAX (UINT64_C(8) << 30)
/* As in the store. */
#define GUESS_MIN 4096u
#define BYTES_STRETCHES 4u
#define BYTES_STRETCH 32768u

struct file {
	const char *path;
	uint8_t *data, *glue; /* owned; glue: what lies in no tensor */
	uint64_t size, glue_len;
	struct tpd_format_layout layout;
};

/* The bytes of one segment: a tensor, or the glue. */
struct span {
	const char *name;
	const uint8_t *data;
	uint64_t len;
	const struct tpd_format_segment *segment; /* NULL: the glue */
};

struct tensor {
	const char *name;
	const uint8_t *x, *p; /* p NULL: no partner */
	uint64_t len, p_len;
	enum tpd_dtype dtype;
	uint32_t row;
	struct tpd_plan plan;
	uint64_t out; /* payload bytes */
};

struct chunk {
	uint32_t tensor;
	struct tpd_chunk in;
	uint8_t *payload; /* in job.payloads, room for in.len bytes */
	size_t payload_len;
	enum tpd_encoding encoding;
};

enum phase { CHOOSE, ENCODE, ENCODE_UNCHECKED, DECODE, PHASES };

struct job {
	struct file x, p, first;
	bool has_p, has_first;
	struct tensor *tensors;
	struct chunk *chunks;
	size_t tensor_count, chunk_count, passes;
	uint8_t *payloads, *decoded;
	uint8_t *sample_x, *sample_p;
	struct tpd_codec *codec;
	/* seconds of each pass, in all and for the chunks of one encoding */
	double *cpu[PHASES], *wall[PHASES], *by_encoding[TPD_ENCODING_COUNT][PHASES];
};

/* --- files --- */

static enum tpd_status read_memory(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err TPD_UNUSED)
{
	const struct file *file = ctx;

	memcpy(buf, file->data + offset, len);
	return TPD_OK;
}

static enum tpd_status file_open(const char *path, struct file *out, struct tpd_err *err)
{
	size_t size = 0;
	uint64_t at = 0;
	enum tpd_status status = tpd_io_read_file(tpd_io_posix(), AT_FDCWD, path, FILE_MAX, &out->data, &size, err);

	if (status)
		return status;
	out->path = path;
	out->size = size;
	status = tpd_format_parse(path, size, read_memory, out, NULL, &out->layout, err);
	if (status)
		return status;
	out->glue = malloc(size + 1);
	if (!out->glue)
		return tpd_fail_nomem(err);
	for (size_t s = 0; s <= out->layout.count; s++) {
		uint64_t end = s < out->layout.count ? out->layout.segments[s].offset : size;

		memcpy(out->glue + out->glue_len, out->data + at, end - at);
		out->glue_len += end - at;
		at = s < out->layout.count ? end + out->layout.segments[s].length : size;
	}
	return TPD_OK;
}

static void file_release(struct file *file)
{
	tpd_format_layout_release(&file->layout);
	free(file->data);
	free(file->glue);
}

/* Span 0 is the glue, span i tensor i - 1. */
static struct span span_of(const struct file *file, size_t i)
{
	const struct tpd_format_segment *segment = i > 0 ? &file->layout.segments[i - 1] : NULL;

	if (!segment)
		return (struct span){"", file->glue, file->glue_len, NULL};
	return (struct span){segment->name, file->data + segment->offset, segment->length, segment};
}

/* Few hundred names a file: no need for more than this. */
static bool find_span(const struct file *file, const char *name, struct span *out)
{
	for (size_t i = 0; i <= file->layout.count; i++) {
		*out = span_of(file, i);
		if (!strcmp(out->name, name))
			return true;
	}
	return false;
}

/* --- samples, as the store takes them --- */

struct geometry {
	uint64_t stretches, stretch, width, elements; /* stretch in bytes */
};

static struct geometry geometry_of(enum tpd_dtype dtype, uint64_t len)
{
	uint64_t width = tpd_dtype_width(dtype), elements = len / width;

	if (dtype == TPD_DTYPE_BYTES && elements > BYTES_STRETCHES * BYTES_STRETCH)
		return (struct geometry){BYTES_STRETCHES, BYTES_STRETCH, 1, elements};
	if (dtype != TPD_DTYPE_BYTES && elements > TPD_SAMPLE_ELEMENTS)
		return (struct geometry){TPD_SAMPLE_STRETCHES, TPD_SAMPLE_STRETCH_ELEMENTS * width, width, elements};
	return (struct geometry){1, len, width, elements};
}

/* What lies beyond a shorter source is zero. */
static void cut_sample(const struct geometry *g, const uint8_t *from, uint64_t from_len, uint8_t *out)
{
	for (uint64_t i = 0; i < g->stretches; i++) {
		uint64_t start = g->stretches == 1
			? 0
			: i * (g->elements - g->stretch / g->width) / (g->stretches - 1) * g->width;
		uint64_t have = start >= from_len ? 0 : TPD_MIN(g->stretch, from_len - start);

		if (have > 0)
			memcpy(out + i * g->stretch, from + start, have);
		memset(out + i * g->stretch + have, 0, g->stretch - have);
	}
}

static enum tpd_status guess(struct job *job, const struct span *span, enum tpd_dtype *out_dtype, struct tpd_err *err)
{
	struct geometry g = geometry_of(TPD_DTYPE_F32, span->len / 4 * 4);
	struct tpd_sample sample = {.x = job->sample_x, .len = g.stretches * g.stretch, .stretch = g.stretch};

	*out_dtype = TPD_DTYPE_BYTES;
	if (sample.len == 0)
		return TPD_OK;
	cut_sample(&g, span->data, span->len, job->sample_x);
	return tpd_plan_guess_dtype(job->codec, &sample, out_dtype, err);
}

/* The type that the format tells, or what the storage looked like at the start of the chain. */
static enum tpd_status dtype_of(struct job *job, const struct file *file, const struct span *span,
				enum tpd_dtype *out_dtype, struct tpd_err *err)
{
	const struct file *first = job->has_first ? &job->first : job->has_p ? &job->p : file;
	struct span looked_at;

	if (span->segment && span->segment->typed) {
		*out_dtype = span->segment->dtype;
	} else if (!span->segment && (file->layout.count > 0 || span->len < GUESS_MIN)) {
		*out_dtype = TPD_DTYPE_BYTES;
	} else {
		if (!find_span(first, span->name, &looked_at) || looked_at.len != span->len)
			looked_at = *span;
		return guess(job, &looked_at, out_dtype, err);
	}
	return TPD_OK;
}

/* --- tensors and chunks --- */

static enum tpd_status add_tensor(struct job *job, const struct span *span, struct tpd_err *err)
{
	struct tensor *tensor = &job->tensors[job->tensor_count];
	struct span partner;
	bool matched = job->has_p && find_span(&job->p, span->name, &partner);
	enum tpd_dtype p_dtype = TPD_DTYPE_BYTES;
	enum tpd_status status;

	*tensor = (struct tensor){.name = span->name, .x = span->data, .len = span->len};
	status = dtype_of(job, &job->x, span, &tensor->dtype, err);
	if (!status && matched)
		status = dtype_of(job, &job->p, &partner, &p_dtype, err);
	if (status)
		return status;
	tensor->row =
		tpd_format_row(span->segment ? span->segment->ndim : 0, span->segment ? span->segment->dims : NULL,
			       span->len / tpd_dtype_width(tensor->dtype));
	if (matched && p_dtype == tensor->dtype && (span->segment ? partner.len == span->len : partner.len > 0)) {
		tensor->p = partner.data;
		tensor->p_len = partner.len;
	}
	job->tensor_count++;
	return TPD_OK;
}

static void cut_chunks(struct job *job)
{
	uint8_t *payload = job->payloads;

	for (size_t t = 0; t < job->tensor_count; t++) {
		const struct tensor *tensor = &job->tensors[t];
		uint64_t full = tpd_chunk_bytes(tensor->dtype);

		for (uint64_t at = 0, n = 0; at < tensor->len; at += full, n++) {
			struct chunk *chunk = &job->chunks[job->chunk_count++];

			*chunk = (struct chunk){.tensor = (uint32_t)t, .payload = payload};
			chunk->in.x = tensor->x + at;
			chunk->in.len = TPD_MIN(full, tensor->len - at);
			chunk->in.element = n * TPD_CHUNK_ELEMENTS;
			if (tensor->p) {
				chunk->in.p = tensor->p + TPD_MIN(at, tensor->p_len);
				chunk->in.ref_len = TPD_MIN(full, tensor->p_len - TPD_MIN(at, tensor->p_len));
			}
			payload += tpd_encode_bound(chunk->in.len);
		}
	}
}

static enum tpd_status job_prepare(struct job *job, struct tpd_err *err)
{
	size_t spans = job->x.layout.count + 1, size = job->x.size + 1;
	size_t chunks = spans + job->x.size / TPD_CHUNK_ELEMENTS + 1; /* no chunk but the last is shorter than that */
	enum tpd_status status = tpd_codec_new(&job->codec, err);

	if (status)
		return status;
	job->tensors = calloc(spans, sizeof(*job->tensors));
	job->chunks = calloc(chunks, sizeof(*job->chunks));
	job->payloads = malloc(size);
	job->decoded = malloc(TPD_CHUNK_MAX_BYTES);
	job->sample_x = malloc(TPD_CHUNK_MAX_BYTES);
	job->sample_p = malloc(TPD_CHUNK_MAX_BYTES);
	if (!job->tensors || !job->chunks || !job->payloads || !job->decoded || !job->sample_x || !job->sample_p)
		return tpd_fail_nomem(err);
	memset(job->payloads, 1, size); /* the first pass is not to pay for the pages */
	for (unsigned phase = 0; phase < PHASES; phase++) {
		job->cpu[phase] = calloc(job->passes, sizeof(double));
		job->wall[phase] = calloc(job->passes, sizeof(double));
		if (!job->cpu[phase] || !job->wall[phase])
			return tpd_fail_nomem(err);
		for (unsigned e = 0; e < TPD_ENCODING_COUNT; e++) {
			job->by_encoding[e][phase] = calloc(job->passes, sizeof(double));
			if (!job->by_encoding[e][phase])
				return tpd_fail_nomem(err);
		}
	}
	for (size_t i = 0; !status && i < spans; i++) {
		struct span span = span_of(&job->x, i);

		if (span.len > 0)
			status = add_tensor(job, &span, err);
	}
	if (!status)
		cut_chunks(job);
	return status;
}

static void job_release(struct job *job)
{
	tpd_codec_free(job->codec);
	free(job->tensors);
	free(job->chunks);
	free(job->payloads);
	free(job->decoded);
	free(job->sample_x);
	free(job->sample_p);
	for (unsigned phase = 0; phase < PHASES; phase++) {
		free(job->cpu[phase]);
		free(job->wall[phase]);
		for (unsigned e = 0; e < TPD_ENCODING_COUNT; e++)
			free(job->by_encoding[e][phase]);
	}
	file_release(&job->x);
	file_release(&job->p);
	file_release(&job->first);
}

/* --- the passes --- */

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum tpd_status choose_all(struct job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t t = 0; !status && t < job->tensor_count; t++) {
		struct tensor *tensor = &job->tensors[t];
		struct geometry g = geometry_of(tensor->dtype, tensor->len);
		struct tpd_sample sample = {.x = job->sample_x, .len = g.stretches * g.stretch, .stretch = g.stretch};
		uint64_t bytes, bytes_alone;

		cut_sample(&g, tensor->x, tensor->len, job->sample_x);
		if (tensor->p) {
			cut_sample(&g, tensor->p, tensor->p_len, job->sample_p);
			sample.p = job->sample_p;
		}
		status = tpd_plan_choose(job->codec, tensor->dtype, tensor->row, &sample, &tensor->plan, &bytes,
					 &bytes_alone, err);
	}
	return status;
}

static enum tpd_status encode_one(struct job *job, struct chunk *chunk, struct tpd_err *err)
{
	return tpd_encode_chunk(job->codec, &job->tensors[chunk->tensor].plan, &chunk->in, chunk->payload,
				&chunk->encoding, &chunk->payload_len, err);
}

/* The same without proof or trial: what ENCODE ended with is made again. */
static enum tpd_status encode_unchecked(struct job *job, struct chunk *chunk, struct tpd_err *err)
{
	struct tpd_plan plan = job->tensors[chunk->tensor].plan;
	size_t len = 0;

	if (chunk->encoding == TPD_ENCODING_COPY)
		return memcmp(chunk->in.x, chunk->in.p, chunk->in.len) == 0
			? TPD_OK
			: tpd_fail(err, TPD_CORRUPT, "a copy of something else");
	if (chunk->encoding != TPD_ENCODING_RAW)
		plan.encoding = chunk->encoding;
	else if (tpd_encoding_needs_reference(plan.encoding) && chunk->in.ref_len == 0)
		plan.encoding = plan.encoding == TPD_ENCODING_ZSTD_REF ? TPD_ENCODING_ZSTD : TPD_ENCODING_PLANES;
	return tpd_encode_with(job->codec, &plan, &chunk->in, 0, &len, err);
}

static enum tpd_status decode_one(struct job *job, struct chunk *chunk, struct tpd_err *err)
{
	return tpd_decode_chunk(job->codec, chunk->encoding, job->tensors[chunk->tensor].dtype, chunk->payload,
				chunk->payload_len, chunk->in.p, chunk->in.ref_len, job->decoded, chunk->in.len, err);
}

/* One phase over all chunks. Their own time is counted twice: in total and for their encoding. */
static enum tpd_status run_chunks(struct job *job, enum phase phase, size_t pass, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t c = 0; !status && c < job->chunk_count; c++) {
		struct chunk *chunk = &job->chunks[c];
		double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);

		switch (phase) {
		case ENCODE:
			status = encode_one(job, chunk, err);
			break;
		case ENCODE_UNCHECKED:
			status = encode_unchecked(job, chunk, err);
			break;
		default:
			status = decode_one(job, chunk, err);
			break;
		}
		cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
		job->wall[phase][pass] += seconds(CLOCK_MONOTONIC) - wall;
		job->cpu[phase][pass] += cpu;
		job->by_encoding[chunk->encoding][phase][pass] += cpu;
		if (!status && phase == DECODE && memcmp(job->decoded, chunk->in.x, chunk->in.len) != 0)
			status = tpd_fail(err, TPD_CORRUPT, "'%s' did not come back as it was",
					  job->tensors[chunk->tensor].name);
	}
	return status;
}

static enum tpd_status run_pass(struct job *job, size_t pass, struct tpd_err *err)
{
	double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
	enum tpd_status status = choose_all(job, err);

	job->cpu[CHOOSE][pass] = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
	job->wall[CHOOSE][pass] = seconds(CLOCK_MONOTONIC) - wall;
	for (unsigned phase = ENCODE; !status && phase < PHASES; phase++)
		status = run_chunks(job, (enum phase)phase, pass, err);
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

static void put_speeds(struct tpd_json_out *out, const char *key, double *const times[PHASES], size_t passes,
		       uint64_t bytes)
{
	double t[PHASES];

	for (unsigned phase = 0; phase < PHASES; phase++)
		t[phase] = median(times[phase], passes);
	tpd_json_key(out, key);
	tpd_json_begin_object(out);
	put_speed(out, "encode_MBps", bytes, t[ENCODE]); /* the chunks, each decoded and compared */
	put_speed(out, "encode_unchecked_MBps", bytes, t[ENCODE_UNCHECKED]);
	put_speed(out, "choose_and_encode_MBps", bytes, t[CHOOSE] > 0 ? t[CHOOSE] + t[ENCODE] : 0);
	put_speed(out, "decode_MBps", bytes, t[DECODE]);
	put_f64(out, "choose_seconds", t[CHOOSE]);
	tpd_json_end_object(out);
}

static void put_encodings(struct tpd_json_out *out, struct job *job)
{
	tpd_json_key(out, "encodings");
	tpd_json_begin_object(out);
	for (unsigned e = 0; e < TPD_ENCODING_COUNT; e++) {
		uint64_t chunks = 0, in = 0, payload = 0, planned = 0;

		for (size_t c = 0; c < job->chunk_count; c++)
			if (job->chunks[c].encoding == (enum tpd_encoding)e) {
				chunks++;
				in += job->chunks[c].in.len;
				payload += job->chunks[c].payload_len;
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
		put_f64(out, "share", (double)in / (double)job->x.size);
		put_speeds(out, "cpu", job->by_encoding[e], job->passes, in);
		tpd_json_end_object(out);
	}
	tpd_json_end_object(out);
}

static void put_tensors(struct tpd_json_out *out, const struct job *job)
{
	tpd_json_key(out, "tensors");
	tpd_json_begin_array(out);
	for (size_t t = 0; t < job->tensor_count; t++) {
		const struct tensor *tensor = &job->tensors[t];

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

static enum tpd_status report(struct job *job, bool tensors, struct tpd_err *err)
{
	struct tpd_buf buf = {0};
	struct tpd_json_out out = tpd_json_out_make(&buf);
	uint64_t payload = 0;
	enum tpd_status status;

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
	put_speeds(&out, "cpu", job->cpu, job->passes, job->x.size);
	put_speeds(&out, "wall", job->wall, job->passes, job->x.size);
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

int main(int argc, char **argv)
{
	static const struct option options[] = {{"passes", required_argument, NULL, 'n'},
						{"tensors", no_argument, NULL, 't'},
						{"types", required_argument, NULL, 'f'},
						{0}};
	struct job job = {.passes = PASSES_DEFAULT};
	struct tpd_err err = {0};
	enum tpd_status status = TPD_OK;
	const char *first = NULL;
	bool tensors = false, usage = false;

	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'n')
			job.passes = strtoul(optarg, NULL, 10);
		else if (option == 't')
			tensors = true;
		else if (option == 'f')
			first = optarg;
		else
			usage = true;
	}
	if (usage || argc - optind < 1 || argc - optind > 2 || job.passes < 1 || job.passes > PASSES_MAX) {
		fprintf(stderr, "usage: codec_speed [--passes N] [--tensors] [--types FIRST] [REFERENCE] NEW\n");
		return 2;
	}
	job.has_p = argc - optind == 2;
	job.has_first = first != NULL;
	status = file_open(argv[argc - 1], &job.x, &err);
	if (!status && job.has_p)
		status = file_open(argv[optind], &job.p, &err);
	if (!status && job.has_first)
		status = file_open(first, &job.first, &err);
	if (!status && job.x.size == 0)
		status = tpd_fail(&err, TPD_USAGE, "'%s' is empty", job.x.path);
	if (!status)
		status = job_prepare(&job, &err);
	for (size_t pass = 0; !status && pass < job.passes; pass++)
		status = run_pass(&job, pass, &err);
	if (!status)
		status = report(&job, tensors, &err);
	job_release(&job);
	if (status)
		fprintf(stderr, "codec_speed: %s\n", err.text);
	return status ? 1 : 0;
}
