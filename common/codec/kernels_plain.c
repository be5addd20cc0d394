/*
 * kernels_plain.c - a form to prove what kernels_avx2.c makes, which decodes half as fast again as what is built for any CPU: the loops that are
 * written by hand there, in plain C, for a compiler that may use AVX2. All others, which these two have from the same headers, are the scalar
 * form's, so that no loop of a proof comes from the same source by the same compiler's options. Of `context` the chances are plain C; places
 * and the coder are avx2's text, built by other options.
 */
#include "base/tpd.h"

#include "codec/kernels.h"

#include "codec/kernels_internal.h"

#if defined(__AVX2__)

#include "codec/context_kernel.h"
#include "codec/grid_plain.h"
#include "codec/predict_kernel.h"
#include "codec/scaled_kernel.h"

const struct tpd_kernels *tpd_kernels_plain_prepare(void)
{
	static const struct tpd_context_kernels context = {context_encode, context_decode};
	static struct tpd_kernels plain;

	plain = tpd_kernels_scalar;
	plain.name = "plain";
	plain.choose_t = choose_t;
	plain.grid_encode = grid_encode;
	plain.grid_decode = grid_decode;
	plain.context = &context;
	plain.predict = predict;
	plain.predict_learn = predict_learn;
	plain.predict_apply = predict_apply;
	plain.scaled_deal = scaled_deal;
	plain.scaled_sort = scaled_sort;
	plain.scaled_encode = scaled_encode;
	plain.scaled_decode = scaled_decode;
	return &plain;
}

#else

const struct tpd_kernels *tpd_kernels_plain_prepare(void)
{
	return NULL; /* not built for this CPU */
}

#endif
