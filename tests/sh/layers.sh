#!/bin/bash
# layers.sh - tools/check_layers.sh on trees made for it: what is allowed passes, each breach is found.
set -u
cd "$(dirname "$0")/../.." || exit 1
check=$PWD/tools/check_layers.sh
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failures=0

# include FILE WHAT: a tree with this one file in it
include() {
	rm -rf "$dir/tree"
	mkdir -p "$dir/tree/$(dirname "$1")"
	printf '/* a line before */\n#include %s\n' "$2" >"$dir/tree/$1"
}
allowed() {
	include "$1" "$2"
	"$check" "$dir/tree" >"$dir/out" 2>&1 || { echo "layers: refused: $1 with $2: $(cat "$dir/out")"; failures=1; }
}
refused() {
	include "$1" "$2"
	"$check" "$dir/tree" >"$dir/out" 2>&1
	[ $? -eq 1 ] && grep -q "^$1:2: " "$dir/out" || { echo "layers: not found: $1 with $2: $(cat "$dir/out")"; failures=1; }
}

allowed common/base/io.c '"base/io.h"'
allowed common/codec/zstd.c '<zstd.h>'
allowed common/store/chain.c '"codec/codec.h"'
allowed common/store/chain.c '"format/format.h"'
allowed common/archive/archive.c '"catalog/catalog.h"'
allowed common/catalog/catalog.c '<sqlite3.h>'
allowed common/catalog/catalog.c '"schema_sql.h"'
allowed daemon/main.c '<uv.h>'
allowed daemon/main.c '"archive/archive.h"'
allowed tools/tpdectl.c '"wire/wire.h"'
allowed tests/t_settle.c '"daemon/settle.h"'
allowed tests/second_decoder.c '<zstd.h>'
allowed tests/second_decoder.c '"second_decoder.h"'
allowed tests/second_decoder.c '"second_reader.h"'
allowed tests/second_reader.h '"second_decoder.h"'
allowed tests/second_scaled.c '"second_reader.h"'
refused common/base/io.c '"codec/codec.h"'
refused common/format/zip.c '"codec/codec.h"'
refused common/codec/plan.c '"format/format.h"'
refused common/codec/plan.c '"store/store.h"'
refused common/catalog/put.c '"store/store.h"'
refused common/catalog/put.c '"codec/codec.h"'
refused common/store/store.c '"catalog/catalog.h"'
refused common/store/store.c '"archive/archive.h"'
refused common/archive/archive.c '"wire/wire.h"'
refused common/wire/wire.c '"archive/archive.h"'
refused common/archive/archive.c '"daemon/queue.h"'
refused common/store/store.c '"../catalog/catalog.h"'
refused common/store/store.c '"common/base/io.h"'
refused common/new/thing.c '"base/io.h"'
refused common/archive/archive.c '<sqlite3.h>'
refused common/store/part.c '<zstd.h>'
refused common/store/part.c ' <zstd_errors.h>'
refused common/base/pool.c '<uv.h>'
refused tools/tpdectl.c '<uv.h>'
refused tools/tpdectl.c '"daemon/queue.h"'
refused daemon/main.c '"tools/table.h"'
refused daemon/main.c '<sqlite3.h>'
refused tests/second_reader.h '"base/bytes.h"'
refused tests/second_decoder.c '"codec/codec.h"'
refused tests/second_scaled.c '"codec/codec.h"'
refused tests/second_tables.c '"base/tpd.h"'

[ $failures -eq 0 ] && echo 'layers: every breach is found'
exit $failures
