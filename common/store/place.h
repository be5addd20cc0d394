/*
 * place.h - where restored files go: a directory that nothing leaves.
 *
 * Paths come from the store and are not trusted. Each component is opened below the one before with O_NOFOLLOW, so neither ".."
 * (refused by name) nor a symbolic link on the way leads out. Files are made under temporary names and get their own at the end, all
 * together, so that a restore that fails leaves the directory as it was.
 */
#ifndef TPD_STORE_PLACE_H
#define TPD_STORE_PLACE_H

#include "base/tpd.h"
#include "store/manifest.h"
#include "store/store.h"

struct tpd_place;

/* TPD_USAGE where `path`, or what would be made of it, is the store's directory or lies below it. Makes nothing. */
enum tpd_status tpd_place_check_outside(const char *path, const struct tpd_store *store, struct tpd_err *err);
/* Makes the directory (and its parents) when missing. */
enum tpd_status tpd_place_open(const char *path, struct tpd_place **out_place, struct tpd_err *err);
/*
 * Before anything is written: TPD_CONFLICT when a file or link of this entry's name is there (unless replace), when it is a directory where
 * the entry is none or the other way round, or when something on the way is no directory.
 */
enum tpd_status tpd_place_check(const struct tpd_place *place, const struct tpd_entry *entry, bool replace,
				struct tpd_err *err);
/* A file under a temporary name, its parents made, room reserved. The place owns the descriptor. */
enum tpd_status tpd_place_create(struct tpd_place *place, const struct tpd_entry *entry, int *out_fd, struct tpd_err *err);
/* Mode, mtime and fsync; closes the descriptor of the entry created last but with this fd. */
enum tpd_status tpd_place_seal(struct tpd_place *place, int fd, struct tpd_err *err);
/* A symbolic link or a directory of the checkpoint. */
enum tpd_status tpd_place_add(struct tpd_place *place, const struct tpd_entry *entry, struct tpd_err *err);
/* All to their names, which are made to last; then modes and mtimes of directories. replace: over what is there. */
enum tpd_status tpd_place_commit(struct tpd_place *place, bool replace, struct tpd_err *err);
/* Without a commit before: removes everything that was made. */
void tpd_place_close(struct tpd_place *place);

#endif
