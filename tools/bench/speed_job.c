/*
 * speed_job.c - files as codec_speed takes them: tensors matched by name, samples and chunks as an ingest cuts them.
 *
 * The same types, samples, plans, chunks and references as in store/ingest_match.c, store/ingest_survey.c and
 * store/ingest_predict.c, hence the same bytes; what predictions are made from comes by the name of the weight, and exp_avg_sq by the name
 * of its exp_avg, in the same file.
 */
#include "base/tpd.h"

#include "tools/bench/speed_job.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/io.h"
#include "codec/internal.h"
#include "codec/rounding.h"
#include "codec/stats.h"
#include "format/state_name.h"

#define FILE_MAX (UINT64_C(8) << 30)
/* As in the store. */
#define GUESS_MIN 4096u
#define INPUT_WIDTH 4u
#define BYTES_STRETCHES 4u
#define BYTES_STRETCH 32768u

/* The bytes of one segment: a tensor, or the glue. */
struct span {
	const char *name;
	const uint8_t *data;
	uint64_t len;
	const struct tpd_format_segment *segment; /* NULL: the glue */
};

/* --- files --- */

static enum tpd_status read_memory(void *ctx, void *buf, size_t len, uint64_t offset, struct tpd_err *err TPD_UNUSED)
{
	const struct speed_file *file = ctx;

	memcpy(buf, file->data + offset, len);
	return TPD_OK;
}

enum tpd_status speed_file_open(const char *path, struct speed_file *out, struct tpd_err *err)
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

static void file_release(struct speed_file *file)
{
	tpd_format_layout_release(&file->layout);
	free(file->data);
	free(file->glue);
}

/* Span 0 is the glue, span i tensor i - 1. */
static struct span span_of(const struct speed_file *file, size_t i)
{
	const struct tpd_format_segment *segment = i > 0 ? &file->layout.segments[i - 1] : NULL;

	if (!segment)
		return (struct span){"", file->glue, file->glue_len, NULL};
	return (struct span){segment->name, file->data + segment->offset, segment->length, segment};
}

/* Few hundred names a file: no need for more than this. */
static bool find_span(const struct speed_file *file, const char *name, struct span *out)
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
	uint64_t width = tpd_dtype_width(dtype), elements = len / width, times = tpd_sample_times(dtype);

	if (dtype == TPD_DTYPE_BYTES && elements > BYTES_STRETCHES * BYTES_STRETCH)
		return (struct geometry){BYTES_STRETCHES, BYTES_STRETCH, 1, elements};
	if (dtype != TPD_DTYPE_BYTES && elements > TPD_SAMPLE_ELEMENTS * times)
		return (struct geometry){TPD_SAMPLE_STRETCHES, TPD_SAMPLE_STRETCH_ELEMENTS * width * times, width, elements};
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

static enum tpd_status guess(struct speed_job *job, const struct span *span, enum tpd_dtype *out_dtype, struct tpd_err *err)
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
static enum tpd_status dtype_of(struct speed_job *job, const struct speed_file *file, const struct span *span,
				enum tpd_dtype *out_dtype, struct tpd_err *err)
{
	const struct speed_file *first = job->has_first ? &job->first : job->has_p ? &job->p : file;
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

/* F32, of the weight's name and with as many elements; the same terms as store/ingest_predict.c offers. */
static void add_inputs(const struct speed_job *job, struct speed_tensor *tensor)
{
	struct span span;
	const uint64_t elements = tensor->len / tpd_dtype_width(tensor->dtype);
	unsigned have = 0;

	if (!tensor->p || tensor->p_len != tensor->len || tpd_dtype_exponent_bits(tensor->dtype) == 0 || elements < TPD_PREDICT_MIN)
		return;
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
		if (job->input_path[i] && find_span(&job->input[i], tensor->name, &span) && span.len == elements * INPUT_WIDTH) {
			tensor->inputs.of[i] = (struct tpd_bytes){span.data, span.len};
			have |= 1u << i;
		}
	if (!have && !job->low_rank)
		return;
	tensor->terms = TPD_TERM_DECAY;
	for (unsigned term = TPD_TERM_STEP; term <= TPD_TERM_NOW; term <<= 1)
		if (tpd_terms_have(term, &tensor->inputs))
			tensor->terms |= (uint8_t)term;
}

/* The exp_avg_sq beside an exp_avg, and its type. */
static bool find_square(const struct speed_file *file, const struct tpd_state_name *avg, struct span *out)
{
	struct tpd_state_name other;

	for (size_t i = 1; i <= file->layout.count; i++) {
		*out = span_of(file, i);
		tpd_state_name(out->name, &other);
		if (other.kind == TPD_STATE_EXP_AVG_SQ && other.length == avg->length && memcmp(other.of, avg->of, avg->length) == 0 &&
		    strcmp(other.chunk, avg->chunk) == 0)
			return true;
	}
	return false;
}

/* As F32, of the tensor's elements; *out_found false: it is of another size or type. */
static enum tpd_status add_square(struct speed_job *job, const struct speed_file *file, const struct span *span, enum tpd_input input,
				  struct speed_tensor *tensor, bool *out_found, struct tpd_err *err)
{
	const uint64_t elements = tensor->len / tpd_dtype_width(tensor->dtype);
	enum tpd_dtype dtype;
	enum tpd_status status = dtype_of(job, file, span, &dtype, err);

	*out_found = !status && (dtype == TPD_DTYPE_F32 || dtype == TPD_DTYPE_BF16) && span->len == elements * tpd_dtype_width(dtype);
	if (!*out_found)
		return status;
	tensor->inputs.of[input] = (struct tpd_bytes){span->data, span->len};
	if (dtype == TPD_DTYPE_F32)
		return TPD_OK;
	tensor->widened[input] = malloc(elements * INPUT_WIDTH);
	if (!tensor->widened[input])
		return tpd_fail_nomem(err);
	memcpy(tensor->widened[input], span->data, span->len);
	tpd_widen_in_place(tensor->widened[input], elements, true);
	tensor->inputs.of[input] = (struct tpd_bytes){tensor->widened[input], elements * INPUT_WIDTH};
	return TPD_OK;
}

/* A moment may be `scaled`, exp_avg by its exp_avg_sq: again as store/ingest_predict.c offers it. */
static enum tpd_status add_scale(struct speed_job *job, struct speed_tensor *tensor, struct tpd_err *err)
{
	struct tpd_state_name name;
	struct span span;
	bool found = false;
	enum tpd_status status = TPD_OK;

	tpd_state_name(tensor->name, &name);
	if ((tensor->p && tensor->p_len != tensor->len) || (name.kind != TPD_STATE_EXP_AVG && name.kind != TPD_STATE_EXP_AVG_SQ) ||
	    (tensor->dtype != TPD_DTYPE_F32 && tensor->dtype != TPD_DTYPE_BF16) ||
	    tensor->len / tpd_dtype_width(tensor->dtype) < TPD_PREDICT_MIN)
		return TPD_OK;
	tensor->may_be_scaled = true;
	if (name.kind == TPD_STATE_EXP_AVG && find_square(&job->x, &name, &span))
		status = add_square(job, &job->x, &span, TPD_INPUT_V2, tensor, &found, err);
	if (status || !found)
		return status;
	tensor->scaled_terms = TPD_TERM_SCALE;
	if (tensor->p && find_square(&job->p, &name, &span))
		status = add_square(job, &job->p, &span, TPD_INPUT_V1, tensor, &found, err);
	if (!status && tensor->inputs.of[TPD_INPUT_V1].data)
		tensor->scaled_terms |= TPD_TERM_CAME_IN;
	return status;
}

static enum tpd_status add_tensor(struct speed_job *job, const struct span *span, struct tpd_err *err)
{
	struct speed_tensor *tensor = &job->tensors[job->tensor_count];
	struct span partner;
	bool matched = job->has_p && find_span(&job->p, span->name, &partner);
	enum tpd_dtype p_dtype = TPD_DTYPE_BYTES;
	enum tpd_status status;

	*tensor = (struct speed_tensor){.name = span->name, .x = span->data, .len = span->len};
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
	add_inputs(job, tensor);
	return add_scale(job, tensor, err);
}

static void cut_chunks(struct speed_job *job)
{
	uint8_t *payload = job->payloads;

	for (size_t t = 0; t < job->tensor_count; t++) {
		struct speed_tensor *tensor = &job->tensors[t];
		uint64_t full = tpd_chunk_bytes(tensor->dtype), width = tpd_dtype_width(tensor->dtype);

		tensor->first_chunk = job->chunk_count;

		for (uint64_t at = 0, n = 0; at < tensor->len; at += full, n++) {
			struct speed_chunk *chunk = &job->chunks[job->chunk_count++];

			*chunk = (struct speed_chunk){.tensor = (uint32_t)t, .payload = payload};
			chunk->in.x = tensor->x + at;
			chunk->in.len = TPD_MIN(full, tensor->len - at);
			chunk->in.element = n * TPD_CHUNK_ELEMENTS;
			if (tensor->p) {
				chunk->in.p = tensor->p + TPD_MIN(at, tensor->p_len);
				chunk->in.ref_len = TPD_MIN(full, tensor->p_len - TPD_MIN(at, tensor->p_len));
			}
			for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
				if (tensor->inputs.of[i].data)
					chunk->inputs.of[i] = (struct tpd_bytes){tensor->inputs.of[i].data + at / width * INPUT_WIDTH,
										 chunk->in.len / width * INPUT_WIDTH};
			chunk->in.inputs = tensor->terms || tensor->scaled_terms ? &chunk->inputs : NULL;
			payload += tpd_encode_bound(chunk->in.len);
		}
		tensor->chunk_count = job->chunk_count - tensor->first_chunk;
	}
}

enum tpd_status speed_job_prepare(struct speed_job *job, struct tpd_err *err)
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
	job->slot_x = malloc(TPD_CHUNK_MAX_BYTES);
	job->slot_w1 = malloc(TPD_CHUNK_MAX_BYTES);
	job->slot_sample = malloc((TPD_CHUNK_ELEMENTS + TPD_STATS_SLACK) * sizeof(*job->slot_sample));
	job->packed_cap = size + size / 64 + 1024; /* more than ZSTD_compressBound() */
	job->packed = malloc(job->packed_cap);
	job->copy = malloc(size);
	if (!job->packed || !job->copy)
		return tpd_fail_nomem(err);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++) {
		job->sample_input[i] = malloc(TPD_CHUNK_MAX_BYTES);
		if (!job->sample_input[i])
			return tpd_fail_nomem(err);
	}
	if (!job->tensors || !job->chunks || !job->payloads || !job->decoded || !job->sample_x || !job->sample_p ||
	    !job->slot_x || !job->slot_w1 || !job->slot_sample)
		return tpd_fail_nomem(err);
	/* The first pass is not to pay for the pages. */
	memset(job->payloads, 1, size);
	memset(job->packed, 1, job->packed_cap);
	memset(job->copy, 1, size);
	for (unsigned phase = 0; phase < SPEED_PHASES; phase++) {
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

void speed_job_release(struct speed_job *job)
{
	tpd_codec_free(job->codec);
	for (size_t t = 0; t < job->tensor_count; t++)
		for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
			free(job->tensors[t].widened[i]);
	free(job->tensors);
	free(job->chunks);
	free(job->payloads);
	free(job->decoded);
	free(job->packed);
	free(job->copy);
	for (unsigned i = 0; i < TPD_INPUT_COUNT; i++) {
		free(job->sample_input[i]);
		file_release(&job->input[i]);
	}
	free(job->sample_x);
	free(job->sample_p);
	free(job->slot_x);
	free(job->slot_w1);
	free(job->slot_sample);
	for (unsigned phase = 0; phase < SPEED_PHASES; phase++) {
		free(job->cpu[phase]);
		free(job->wall[phase]);
		for (unsigned e = 0; e < TPD_ENCODING_COUNT; e++)
			free(job->by_encoding[e][phase]);
	}
	file_release(&job->x);
	file_release(&job->p);
	file_release(&job->first);
}

/* --- coding --- */

enum tpd_status speed_choose_all(struct speed_job *job, struct tpd_err *err)
{
	enum tpd_status status = TPD_OK;

	for (size_t t = 0; !status && t < job->tensor_count; t++) {
		struct speed_tensor *tensor = &job->tensors[t];
		struct geometry g = geometry_of(tensor->dtype, tensor->len);
		struct tpd_sample sample = {.x = job->sample_x, .len = g.stretches * g.stretch, .stretch = g.stretch};
		struct tpd_inputs inputs = {0};
		uint64_t bytes, bytes_alone;

		cut_sample(&g, tensor->x, tensor->len, job->sample_x);
		if (tensor->p) {
			cut_sample(&g, tensor->p, tensor->p_len, job->sample_p);
			sample.p = job->sample_p;
		}
		for (unsigned i = 0; i < TPD_INPUT_COUNT; i++)
			if (tensor->inputs.of[i].data) {
				const struct geometry of = {g.stretches, g.stretch / g.width * INPUT_WIDTH, INPUT_WIDTH, g.elements};

				cut_sample(&of, tensor->inputs.of[i].data, tensor->inputs.of[i].len, job->sample_input[i]);
				inputs.of[i] = (struct tpd_bytes){job->sample_input[i], of.stretches * of.stretch};
			}
		if (tensor->terms || tensor->scaled_terms)
			sample.inputs = &inputs;
		if (tensor->terms) {
			sample.term_sets = &tensor->terms;
			sample.term_set_count = 1;
		}
		sample.try_low_rank = job->low_rank;
		sample.context_part = tensor->may_be_scaled ? 0 : job->low_rank ? TPD_CONTEXT_PART_MAX : TPD_CONTEXT_PART;
		sample.try_scaled = tensor->may_be_scaled;
		sample.scaled_terms = tensor->scaled_terms;
		status = tpd_plan_choose(job->codec, tensor->dtype, tensor->row, &sample, &tensor->plan, &bytes, &bytes_alone, err);
	}
	return status;
}

/* Without proof or trial: what tpd_encode_chunk() ended with is made again. */
enum tpd_status speed_encode_unchecked(struct tpd_codec *codec, const struct speed_job *job, const struct speed_chunk *chunk,
				       struct tpd_err *err)
{
	struct tpd_plan plan = job->tensors[chunk->tensor].plan;
	size_t len = 0;

	if (chunk->encoding == TPD_ENCODING_COPY)
		return memcmp(chunk->in.x, chunk->in.p, chunk->in.len) == 0 ? TPD_OK
									     : tpd_fail(err, TPD_CORRUPT, "a copy of something else");
	if (chunk->encoding != TPD_ENCODING_RAW)
		plan.encoding = chunk->encoding;
	else if (tpd_encoding_needs_reference(plan.encoding) && chunk->in.ref_len == 0)
		plan.encoding = plan.encoding == TPD_ENCODING_ZSTD_REF ? TPD_ENCODING_ZSTD : TPD_ENCODING_PLANES;
	return tpd_encode_with(codec, &plan, &chunk->in, 0, &len, err);
}

enum tpd_status speed_decode(struct tpd_codec *codec, const struct speed_job *job, const struct speed_chunk *chunk, uint8_t *out,
			     struct tpd_err *err)
{
	const struct tpd_references references = {chunk->in.p, chunk->in.ref_len, chunk->in.inputs};

	return tpd_decode_chunk_with(codec, chunk->encoding, job->tensors[chunk->tensor].dtype, chunk->payload, chunk->payload_len,
				     &references, out, chunk->in.len, err);
}
