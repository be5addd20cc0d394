/*
 * vfs.h - sqlite's operating system, made of a struct tpd_io.
 *
 *     struct tpd_vfs *vfs;
 *     tpd_vfs_new(io, true, &vfs, err);
 *     sqlite3_open_v2(path, &db, flags, tpd_vfs_name(vfs));
 *     ... tpd_vfs_sys(vfs) is the errno behind an error of sqlite's ...
 *     sqlite3_close(db);
 *     tpd_vfs_free(vfs);
 *
 * One for each connection: it is registered under a name of its own.  Belongs to the thread of the connection.
 */
#ifndef TPD_CATALOG_VFS_H
#define TPD_CATALOG_VFS_H

#include "base/io.h"
#include "base/tpd.h"

struct tpd_vfs;

/* read_fallback: a database that we may not write is opened for reading, as sqlite's own VFS does. */
enum tpd_status tpd_vfs_new(const struct tpd_io *io, bool read_fallback, struct tpd_vfs **out_vfs, struct tpd_err *err);
void tpd_vfs_free(struct tpd_vfs *vfs); /* after its connection; NULL is fine */
const char *tpd_vfs_name(const struct tpd_vfs *vfs);

/* The errno of the first operation that failed since tpd_vfs_forget(); 0: none. */
int tpd_vfs_sys(const struct tpd_vfs *vfs);
void tpd_vfs_forget(struct tpd_vfs *vfs);

#endif
