#!/bin/bash
# daemon_full.sh - a store's disk that copies of captures fill: the jobs must get the room. Wants root, for a tmpfs; else it is skipped.
#
# On 200 MB there are three copies of 60 MB and no room for what any job writes. Their originals are unchanged, so the copies are
# given back and all three are stored.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${BUILD:-build}" && pwd) || exit 1
dir=$(mktemp -d "${TMPDIR:-/tmp}/tpded-full.XXXXXX") || exit 1
daemon=
trap '[ -z "$daemon" ] || kill -9 $daemon 2>/dev/null; wait 2>/dev/null; umount "$dir/disk" 2>/dev/null; rm -rf "$dir"' EXIT
mkdir "$dir/disk" "$dir/runs" "$dir/made"
if [ "$(id -u)" -ne 0 ] || ! mount -t tmpfs -o size=200m tmpfs "$dir/disk" 2>/dev/null; then
	echo 'daemon_full: skipped: no tmpfs of our own'
	exit 77
fi
printf '%s\n' '[store]' "path=$dir/disk/store" '[daemon]' "control_socket=$dir/c.sock" low_space=1M spool_copies=1G threads=1 \
	'[watch:full]' "path=$dir/runs" settle=1s >"$dir/conf"
for step in 1 2 3; do head -c 60000000 /dev/urandom >"$dir/made/step-$step.pt"; done
"$build/tpded" --config "$dir/conf" 2>"$dir/log" &
daemon=$!
sleep 1
mv "$dir"/made/* "$dir/runs/"
for ((i = 0; i < 600; i++)); do
	[ "$(grep -c ': stored full@' "$dir/log")" -lt 3 ] || break
	sleep 0.1
done
stored=$(grep -c ': stored full@' "$dir/log")
if [ "$stored" -ne 3 ]; then
	echo "daemon_full: $stored of 3 stored within a minute:"
	tail -n 8 "$dir/log"
	exit 1
fi
for step in 1 2 3; do
	"$build/tpdectl" --config "$dir/conf" --quiet restore "full@$step" --to "$dir/back" &&
		cmp "$dir/runs/step-$step.pt" "$dir/back/step-$step.pt" || { echo "daemon_full: step $step came back otherwise"; exit 1; }
done
echo 'daemon_full: 3 stored on a disk that their copies had filled'
