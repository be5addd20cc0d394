/*
 * kernels_plain.h - all loops of kernels.h in plain C: for kernels_scalar.c, which is built for any CPU, and kernels_plain.c.
 */
#ifndef TPD_CODEC_KERNELS_PLAIN_H
#define TPD_CODEC_KERNELS_PLAIN_H

#include "codec/classes_kernel.h"
#include "codec/grid_plain.h"
#include "codec/kernels_internal.h"
#include "codec/low_rank_kernel.h"
#include "codec/planes_kernel.h"
#include "codec/predict_kernel.h"
#include "codec/scaled_kernel.h"
#include "codec/stats_internal.h"
#include "codec/step_kernel.h"

/* A form of this name, with these statistics. */
#define TPD_PLAIN_KERNELS(form, statistics) \
	{ \
		.name = (form), .survey = (statistics), \
		.choose_t = choose_t, \
		.grid_encode = grid_encode, \
		.grid_decode = grid_decode, \
		.fields_pack = tpd_scalar_fields_pack, \
		.predict = predict, \
		.predict_learn = predict_learn, \
		.predict_ratio = predict_ratio, \
		.predict_difference = predict_difference, \
		.predict_apply = predict_apply, \
		.predict_products = predict_products, \
		.low_rank_square = low_rank_square, \
		.low_rank_project = low_rank_project, \
		.low_rank_products = low_rank_products, \
		.low_rank_add = low_rank_add, \
		.scaled_scale = scaled_scale, \
		.scaled_predict = scaled_predict, \
		.scaled_steps = scaled_steps, \
		.scaled_quotients = scaled_quotients, \
		.scaled_far = scaled_far, \
		.scaled_learn = scaled_learn, \
		.scaled_measure = scaled_measure, \
		.scaled_columns = scaled_columns, \
		.scaled_deal = scaled_deal, \
		.scaled_sort = scaled_sort, \
		.scaled_encode = scaled_encode, \
		.scaled_decode = scaled_decode, \
		.class_keys = class_keys, \
		.step_widen = step_widen, \
		.step_jump = step_jump, \
		.step_target = step_target, \
		.step_mirror = step_mirror, \
		.step_choose = step_choose, \
		.rans_encode = tpd_scalar_rans_encode, \
		.rans_decode = tpd_scalar_rans_decode, \
		.rans_encode_mixed = tpd_scalar_rans_encode_mixed, \
		.rans_decode_mixed = tpd_scalar_rans_decode_mixed, \
		.count_bytes = tpd_count_bytes, \
		.planes_split = planes_split, \
		.planes_join = planes_join, \
		.find_changes = tpd_scalar_find_changes, \
	}

#endif
