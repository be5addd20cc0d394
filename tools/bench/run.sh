#!/bin/bash
# run.sh [DIR...] - `make bench`: what tpded saves, and how fast, beside zstd -3 and ZipNN, on real training runs.
#
# DIRs are runs (directories with checkpoint-N in them), or hold runs at any depth. With none, $BENCH_RUNS is taken;
# without that, six runs are trained here: pretrain, finetune and bf16 of 8.4 M parameters with two seeds, 120 steps
# each, saved every 20 (3 GB in $BUILD/bench/runs, about ten minutes on two cores; they are kept for the next time).
# Nobody chose anything in tpded by looking at these two seeds.
#
# The table goes to standard output, every figure to $BUILD/bench/results.json. The status is 0 only when every claim
# that the last block lists holds. Python and the peers are brought into $BUILD/bench/venv; the product needs neither.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
mkdir -p "$build/bench"
build=$(cd "$build" && pwd)
bench=$build/bench
seeds=(11 12)
kinds=(pretrain finetune bf16)

# ZipNN imports torch, and its own version is part of the figures: it is pinned.
packages=(torch zipnn==0.5.4 numpy safetensors zstandard)
python=$bench/venv/bin/python

train() { # KIND SEED
	local out=$bench/runs/seed-$2/$1
	echo "Training: $1, seed $2" >&2
	rm -rf "$out"
	mkdir -p "$out"
	if ! "$python" "$root/tools/make_checkpoints.py" "$1" --out "$out" --size medium --steps 120 --every 20 --seed "$2" \
		>"$out.log" 2>&1; then
		tail -n 5 "$out.log" >&2
		echo "run.sh: the training failed; all of its output is in $out.log" >&2
		exit 1
	fi
	touch "$out.done"
}

[ $# -gt 0 ] || [ -z "${BENCH_RUNS:-}" ] || set -- "$BENCH_RUNS"
missing=()
if [ $# -eq 0 ]; then
	for seed in "${seeds[@]}"; do
		for kind in "${kinds[@]}"; do
			[ -e "$bench/runs/seed-$seed/$kind.done" ] || missing+=("$kind $seed")
		done
	done
	set -- "$bench/runs"
fi
[ ${#missing[@]} -eq 0 ] || packages+=('transformers<6' accelerate tokenizers)
"$root/tools/venv.sh" "$bench/venv" "${packages[@]}" >&2
for run in ${missing[@]+"${missing[@]}"}; do
	# shellcheck disable=SC2086
	train $run
done
exec "$python" -B "$root/tools/bench/bench.py" --build "$build" "$@"
