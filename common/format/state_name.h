/*
 * state_name.h - what a tensor's name says of its part in an optimizer's state.
 *
 *     tpd_state_name("optimizer_states.0.state.12.exp_avg", &part)    kind EXP_AVG, of "optimizer_states.0.state.12", numbered
 *     tpd_state_name("optim.layers.0.weight.exp_avg_sq[8,0]", &part)  kind EXP_AVG_SQ, of "optim.layers.0.weight", chunk "[8,0]"
 *     tpd_state_name("optimizer.state.exp_avg.layers.0.weight", ..)   kind EXP_AVG, of "layers.0.weight"
 *     tpd_state_name("layers.0.weight", &part)                        kind NONE, all of it is the name
 *
 * The keys are those of torch.optim's state dictionaries (Adam and what is like it, SGD), as the frameworks put them into names:
 * behind the parameter (state_dict(), get_state_dict() of torch.distributed.checkpoint 2.13), or before it (megatron-core 0.16).
 */
#ifndef TPD_FORMAT_STATE_NAME_H
#define TPD_FORMAT_STATE_NAME_H

#include "base/tpd.h"

/* On disk (manifest); assigned once. */
enum tpd_state_kind {
	TPD_STATE_NONE = 0, /* not on disk: no state, as far as its name goes */
	TPD_STATE_EXP_AVG = 1,
	TPD_STATE_EXP_AVG_SQ = 2,
	TPD_STATE_MAX_EXP_AVG_SQ = 3,
	TPD_STATE_MOMENTUM = 4,
	TPD_STATE_MASTER = 5, /* a weight in higher precision, of which the model's is the rounding or a copy; no name says so */
	TPD_STATE_KINDS       /* not on disk: one more than the last */
};

const char *tpd_state_kind_name(enum tpd_state_kind kind); /* "exp_avg", ..., "momentum_buffer", "master"; "?" */

struct tpd_state_name {
	enum tpd_state_kind kind;
	const char *of;    /* whose state: a part of the name, borrowed; not ended by a zero; may be empty */
	size_t length;
	const char *chunk; /* "[8,0]" at the name's end, else "": which chunk of a tensor that is stored in several */
	size_t chunk_length;
	bool numbered;     /* the parameter is a number, not a name: its last part has digits only */
};

void tpd_state_name(const char *name, struct tpd_state_name *out);

#endif
