#!/bin/bash
# memory.sh RUN [SIZE] - peak memory on one huge file: does it stay the same whatever a checkpoint's size?
#
# The model.safetensors of each checkpoint of RUN (at least four) is tiled into one valid file of SIZE bytes (2 GB unless given), as if
# the model had so many more layers. Nine of them, the run's checkpoints over and over, become a chain of depth 8: stored by the
# daemon, then restored and verified. The peak (VmHWM) of each process must stay under 256 MiB at two threads, and every link must be
# coded as grid. Needs python3 (to tile), 3 x SIZE of room for the originals and the store's; a quarter of an hour.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${BUILD:-build}" && pwd) || exit 1
run=$(realpath "${1:?RUN}") size=${2:-2000000000} links=9 limit_kb=262144
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/tpded-memory.XXXXXX") || exit 1
daemon=
trap '[ -z "$daemon" ] || kill -9 $daemon 2>/dev/null; wait 2>/dev/null; rm -rf "$dir"' EXIT
failures=0
fail() { echo "memory: $*"; failures=$((failures + 1)); }
mapfile -t checkpoints < <(find "$run" -maxdepth 1 -name 'checkpoint-*' | sort -V)
[ ${#checkpoints[@]} -ge 4 ] || { echo "memory: '$run' holds fewer than four checkpoints"; exit 1; }

tile() { # FROM TO
	python3 - "$1" "$2" "$size" <<'PYTHON'
import json, struct, sys
source, target, wanted = open(sys.argv[1], "rb"), open(sys.argv[2], "wb"), int(sys.argv[3])
length = struct.unpack("<Q", source.read(8))[0]
header = json.loads(source.read(length))
header.pop("__metadata__", None)
data = source.read()
tiles, out = -(-wanted // len(data)), {}
for tile in range(tiles):
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        out[f"tile.{tile}.{name}"] = {**tensor, "data_offsets": [begin + tile * len(data), end + tile * len(data)]}
text = json.dumps(out, separators=(",", ":")).encode()
target.write(struct.pack("<Q", len(text)) + text)
for tile in range(tiles):
    target.write(data)
PYTHON
}

# peak PID: its VmHWM in kB, as long as it lives
peak() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status" 2>/dev/null; }
report() { # WHAT KB
	printf '%-22s %6d kB\n' "$1" "$2"
	[ "$2" -gt 0 ] && [ "$2" -lt $limit_kb ] || fail "$1: $2 kB is not under $limit_kb"
}
# watched WHAT COMMAND...: run it to its end; its peak is the last one seen, at most 50 ms before
watched() {
	local what=$1 pid last=0 now
	shift
	"$@" >"$dir/out" 2>&1 &
	pid=$!
	while now=$(peak $pid) && [ -n "$now" ]; do last=$now; sleep 0.05; done
	wait $pid || fail "$what failed: $(tail -n 2 "$dir/out")"
	report "$what" "$last"
}

mkdir "$dir/watched"
printf '%s\n' '[store]' "path=$dir/store" '[daemon]' "control_socket=$dir/c.sock" threads=2 '[watch:large]' "path=$dir/watched" settle=1 >"$dir/conf"
ctl=("$build/tpdectl" --config "$dir/conf" --threads 2 --quiet)
"$build/tpded" --config "$dir/conf" 2>"$dir/log" &
daemon=$!
for ((i = 1; i <= links; i++)); do
	tile "${checkpoints[$(((i - 1) % ${#checkpoints[@]}))]}/model.safetensors" "$dir/step-$i.safetensors"
	sha256sum <"$dir/step-$i.safetensors" >"$dir/sum-$i"
	mv "$dir/step-$i.safetensors" "$dir/watched/"
	for ((w = 0; w < 6000; w++)); do
		[ "$("${ctl[@]}" --json list large 2>/dev/null | grep -o '"step":' | wc -l)" -lt $i ] || break
		kill -0 $daemon 2>/dev/null || break
		sleep 0.1
	done
	[ $i -lt 3 ] || rm -f "$dir/watched/step-$((i - 1)).safetensors" # the rest of the chain is replayed, not read
done
report "daemon, $links checkpoints" "$(peak $daemon)"
kill $daemon
wait $daemon || fail "the daemon ended with $?: $(tail -n 2 "$dir/log")"
daemon=
depth=$("${ctl[@]}" --json list large | grep -o '"depth":[0-9]*' | cut -d: -f2 | sort -n | tail -n 1)
[ "$depth" -eq $((links - 1)) ] || fail "depth $depth instead of $((links - 1))"
"${ctl[@]}" --json show "large@$links" --tensors | tr '{' '\n' | grep -o '"encoding":"[a-z-]*"' | sort | uniq -c
watched "restore at depth $depth" "${ctl[@]}" restore "large@$links" --to "$dir/back"
sha256sum <"$dir/back/step-$links.safetensors" | cmp -s - "$dir/sum-$links" || fail 'the restored file differs'
watched 'verify' "${ctl[@]}" verify "large@$links"
echo "memory: $(stat -c %s "$dir/back/step-$links.safetensors") bytes a file, two threads"
[ $failures -eq 0 ]
