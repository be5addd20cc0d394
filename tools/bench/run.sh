#!/bin/bash
# run.sh [DIR...] - `make bench`: what tpded saves, and how fast, beside its peers, on real training runs.
#
# DIRs are runs (directories with checkpoint-N or step-N.pt in them), or hold runs at any depth. With none, $BENCH_RUNS is
# taken; without that, ten runs are trained here: pretrain, finetune, bf16, master and lora of 8.4 M parameters with two
# seeds, 120 steps each, saved every 20 (5 GB in $BUILD/bench/runs; they are kept for the next time).
# Nobody chose anything in tpded by looking at these two seeds.
#
#   BENCH_PASSES=N     each time is the median of N passes (3)
#   BENCH_SLOW=WORD    zstd -19, xdelta3 and other slow peers for all checkpoints of each run, for some (the first and the
#                      middle one), or none: minutes a checkpoint (some)
#   BENCH_QUICK=1      one pass, no slow peers, and not `effort = fast`
#
# The tables go to standard output and $BUILD/bench/results.md, every figure to results.json there, and bytes per
# checkpoint along each run to results.svg. The status is 0 only when every claim that the last block lists, and that
# could be measured, holds. Python and the peers are brought into $BUILD/bench/venv; the product needs neither.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
mkdir -p "$build/bench"
build=$(cd "$build" && pwd)
bench=$build/bench
seeds=(11 12)
kinds=(pretrain finetune bf16 master lora)
quick=${BENCH_QUICK:+1}
passes=${BENCH_PASSES:-$([ -n "$quick" ] && echo 1 || echo 3)}
slow=${BENCH_SLOW:-$([ -n "$quick" ] && echo none || echo some)}
efforts=(balanced max)
[ -n "$quick" ] || efforts+=(fast)

# The peers' versions are part of the figures: they are pinned.
packages=(torch zipnn==0.5.4 pcodec==1.1.0 openzl==0.3.0 zstandard==0.25.0 numpy safetensors)
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
[ ${#missing[@]} -eq 0 ] || packages+=('transformers<6' accelerate tokenizers peft)
"$root/tools/venv.sh" "$bench/venv" "${packages[@]}" >&2
for run in ${missing[@]+"${missing[@]}"}; do
	# shellcheck disable=SC2086
	train $run
done
exec "$python" -B "$root/tools/bench/bench.py" --build "$build" --passes "$passes" --slow "$slow" \
	--efforts "${efforts[@]}" -- "$@"
