#!/bin/bash
# memory.sh RUN [SIZE [state]] - peak memory on huge files: does it stay the same whatever a checkpoint's size?
#
# Each checkpoint of RUN (at least four) is tiled into one of SIZE bytes (2 GB unless given), as if the model had so many more layers: its
# weights in one file, or with `state` AdamW's moments beside them (which takes a python3 with torch, PYTHON). Nine of them, the run's
# checkpoints over and over, become a chain of depth 8: stored by the daemon, then restored and verified. The peak (VmHWM) of each process
# must stay under 256 MiB at two threads, and what comes back must be what went in. One original is there at a time (without `state`
# two, the latter read in the chain's place). Needs room for it, for what is restored, and for the store, and does not go on where less
# than RESERVE bytes (5 GB) would be left to others; a quarter of an hour for 2 GB on an idle machine.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${BUILD:-build}" && pwd) || exit 1
run=$(realpath "${1:?RUN}") size=${2:-2000000000} state=${3:-} links=9 limit_kb=262144
python=${PYTHON:-python3} reserve=${RESERVE:-5000000000}
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/tpded-memory.XXXXXX") || exit 1
daemon=
trap '[ -z "$daemon" ] || kill -9 $daemon 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
failures=0
fail() { echo "memory: $*"; failures=$((failures + 1)); }
mapfile -t checkpoints < <(find "$run" -maxdepth 1 -name 'checkpoint-*' | sort -V)
[ ${#checkpoints[@]} -ge 4 ] || { echo "memory: '$run' holds fewer than four checkpoints"; exit 1; }

# peak PID: its VmHWM in kB, as long as it lives
peak() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status" 2>/dev/null; }
report() { # WHAT KB
	printf '%-22s %6d kB\n' "$1" "$2"
	[ "$2" -gt 0 ] && [ "$2" -lt $limit_kb ] || fail "$1: $2 kB is not under $limit_kb"
}
# watched WHAT COMMAND...: run it to its end; its peak is the last one seen, at most 50 ms before
watched() {
	local what=$1 pid last=0 now started=$SECONDS
	shift
	"$@" >"$dir/out" 2>&1 &
	pid=$!
	while now=$(peak $pid) && [ -n "$now" ]; do last=$now; sleep 0.05; done
	wait $pid || fail "$what failed: $(tail -n 2 "$dir/out")"
	report "$what" "$last"
	echo "$what: $((SECONDS - started)) s"
}
room() { df -B1 --output=avail "$dir" | tail -n 1; }
# Enough for one more original and what is stored of it, or for what is restored; else it ends here.
need_room() {
	local free
	free=$(room)
	[ "$free" -gt $(($1 + reserve)) ] ||
		{ echo "memory: $free bytes are free in '$dir': $2 takes $1, and $reserve stay for others"; exit 1; }
}
# of all files below, wherever they are
sums() { find "$1" -type f -exec sha256sum {} + | cut -c 1-64 | sort; }

mkdir "$dir/watched" "$dir/new"
printf '%s\n' '[store]' "path=$dir/store" '[daemon]' "control_socket=$dir/c.sock" threads=2 \
	"low_space=$((3 * size + reserve))" '[watch:large]' "path=$dir/watched" settle=1 >"$dir/conf"
[ -z "$state" ] || printf '%s\n' '[codec]' depend=optimizer >>"$dir/conf" # all that a link can need
ctl=("$build/tpdectl" --config "$dir/conf" --threads 2 --quiet)
"$build/tpded" --config "$dir/conf" 2>"$dir/log" &
daemon=$!
for ((i = 1; i <= links; i++)); do
	need_room $((2 * size)) "checkpoint $i"
	name=step-$i.safetensors
	[ -z "$state" ] || name=checkpoint-$i
	"$python" -B tests/large/tile.py "${checkpoints[$(((i - 1) % ${#checkpoints[@]}))]}" "$dir/new/$name" "$size" $state ||
		{ fail 'no tiles'; exit 1; }
	sums "$dir/new" >"$dir/sums-$i"
	started=$SECONDS
	mv "$dir/new/$name" "$dir/watched/"
	for ((w = 0; w < 18000; w++)); do
		[ "$("${ctl[@]}" --json list large 2>/dev/null | grep -o '"step":' | wc -l)" -lt $i ] || break
		kill -0 $daemon 2>/dev/null || break
		sleep 0.1
	done
	echo "checkpoint $i: stored in $((SECONDS - started)) s, the daemon's peak $(peak $daemon) kB, the store $(du -sB1 "$dir/store" | cut -f 1) bytes"
	if [ -n "$state" ]; then # the chain is replayed, not read
		rm -rf "$dir/watched/$name"
	elif [ $i -ge 3 ]; then
		rm -f "$dir/watched/step-$((i - 1)).safetensors"
	fi
done
report "daemon, $links checkpoints" "$(peak $daemon)"
kill $daemon
wait $daemon || fail "the daemon ended with $?: $(tail -n 2 "$dir/log")"
daemon=
depth=$("${ctl[@]}" --json list large | grep -o '"depth":[0-9]*' | cut -d: -f2 | sort -n | tail -n 1)
[ "$depth" -eq $((links - 1)) ] || fail "depth $depth instead of $((links - 1))"
"${ctl[@]}" --json show "large@$links" --tensors | tr '{' '\n' | grep -v '^"encoding"' | grep -o '"encoding":"[a-z-]*"' | sort | uniq -c
rm -rf "$dir/watched"
need_room "$size" 'what is restored'
watched "restore at depth $depth" "${ctl[@]}" restore "large@$links" --to "$dir/back"
sums "$dir/back" | cmp -s - "$dir/sums-$links" || fail 'what was restored differs'
bytes=$(du -sb --apparent-size "$dir/back" | cut -f 1)
rm -rf "$dir/back"
watched 'verify' "${ctl[@]}" verify "large@$links"
echo "memory: $bytes bytes a checkpoint, two threads"
[ $failures -eq 0 ]
