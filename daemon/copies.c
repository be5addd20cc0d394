/*
 * copies.c - which captures are copied into the spool, where blocks cannot be shared.
 *
 * The problem: a held descriptor survives deletion and renames, not a save into the same file. A copy does, but it costs as much writing as
 * the checkpoint is long, on the store's disk, beside the half that storing it takes. So it is made where an over-writing is to be
 * feared, within `spool_copies=` and `low_space=`:
 *
 *     seen to be written over in place       always: it will be again
 *     a directory whose name tells its step  no: frameworks write each step into a directory of its own
 *     any other, and single files            yes, unless its job begins at once and it is large
 *
 * Single files are what loops of one's own save, to one path, or to step-N.pt again after a restart. Large and at once: encoding
 * reads 150 to 200 MB/s a thread, so it is through before the next save of that size, which is minutes away, and the copy would double
 * what the disk has to take. If it is written over all the same, that capture is void, told as missed, and the place is known from then
 * on. Small ones are copied even then: that costs next to nothing, and saves of small files may be seconds apart.
 *
 * Rejected: copying only what was seen to be written over (loses the first version each time that the daemon starts), and copying
 * everything (an HF run of 100 GB checkpoints would be written twice for nothing).
 */
#include "base/tpd.h"

#include "daemon/copies.h"

#define LARGE (256ull << 20) /* some two seconds of encoding on one thread */

bool tpd_copies_wanted(const struct tpd_copy_case *which)
{
	if (which->in_place)
		return true;
	if (which->named_step && !which->single_file)
		return false;
	return !(which->at_once && which->bytes > LARGE);
}
