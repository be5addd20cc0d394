/*
 * manifest_internal.h - what manifest.c, manifest_write.c and manifest_read.c share.
 */
#ifndef TPD_STORE_MANIFEST_INTERNAL_H
#define TPD_STORE_MANIFEST_INTERNAL_H

#include "store/manifest.h"

#define TPD_MANIFEST_MAGIC "TPDMANI1"
#define TPD_MANIFEST_HEADER 64
#define TPD_MANIFEST_SIGNED 48 /* bytes of the header that its digest covers */
#define TPD_MANIFEST_PATH_MAX 4095
/* Sum of all file sizes, and of all parts: what an off_t can say, so that no sum of them overflows. */
#define TPD_MANIFEST_BYTES_MAX ((uint64_t)INT64_MAX)

/*
 * The rules of FORMAT.md section 2 that are about values, not about bytes. `class` is what a broken rule is:
 * TPD_CORRUPT for what was read, TPD_USAGE for what is about to be written.
 */
enum tpd_status tpd_manifest_check_logical(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err);
/* Needs the derived fields. */
enum tpd_status tpd_manifest_check_physical(const struct tpd_manifest *m, enum tpd_status class, struct tpd_err *err);

/* Fill files, file_count and each first_chunk. */
enum tpd_status tpd_manifest_derive(struct tpd_manifest *m, struct tpd_err *err);

/* The id of a logical section. */
enum tpd_status tpd_manifest_identify(const uint8_t *logical, size_t len, struct tpd_id *out_id, struct tpd_err *err);
void tpd_manifest_put_logical(const struct tpd_manifest *m, struct tpd_buf *out);

#endif
