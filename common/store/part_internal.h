/*
 * part_internal.h - the bytes of an index entry, for part_write.c and part_read.c.
 */
#ifndef TPD_STORE_PART_INTERNAL_H
#define TPD_STORE_PART_INTERNAL_H

#include "store/part.h"

#define TPD_PART_MAGIC "TPDPART1"
#define TPD_PART_END_MAGIC "TPDPEND1"
#define TPD_PART_VERSION 1
#define TPD_PART_SIGNED 56 /* bytes of the trailer that its digest covers */

/* The entry's check: the first four bytes of the digest over all but the check itself. */
void tpd_part_entry_check(const uint8_t in[TPD_PART_ENTRY], uint8_t out_check[4]);
void tpd_part_entry_put(const struct tpd_part_entry *entry, uint8_t out[TPD_PART_ENTRY]);
/* The fields as they are, without any judgement. */
void tpd_part_entry_get(const uint8_t in[TPD_PART_ENTRY], struct tpd_part_entry *out);

#endif
