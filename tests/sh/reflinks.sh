#!/bin/bash
# reflinks.sh - captures on a file system that shares blocks: a Btrfs in a file, for which it needs root, mkfs.btrfs and a loop device.
# BUILD names the directory of the programs.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${BUILD:-build}" && pwd) || exit 1
[ "$(id -u)" -eq 0 ] || { echo 'reflinks: needs root to mount'; exit 77; }
command -v mkfs.btrfs >/dev/null || { echo 'reflinks: needs mkfs.btrfs'; exit 77; }
dir=$(mktemp -d) || exit 1
trap 'umount "$dir/mnt" 2>/dev/null; rm -rf "$dir"' EXIT
mkdir "$dir/mnt"
truncate -s 300M "$dir/image"
mkfs.btrfs -q "$dir/image" 2>/dev/null || { echo 'reflinks: mkfs.btrfs failed'; exit 1; }
mount -o loop "$dir/image" "$dir/mnt" 2>/dev/null || { echo 'reflinks: nothing can be mounted here'; exit 77; }
TPD_TEST_REFLINKS=1 TMPDIR=$dir/mnt "$build/tests/t_archive"
