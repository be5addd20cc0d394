#!/bin/bash
# large.sh [RUN] - `make bench-large`: what a huge checkpoint needs of memory, and what a long chain costs to read.
#
#   1. tests/large/memory.sh: checkpoints of LARGE_SIZE bytes (10 GB), AdamW's state among them, as a chain of depth 8: daemon, restore and
#      verify each under 256 MiB. On disk: a checkpoint and what is stored of nine, about 8 x LARGE_SIZE; TMPDIR says where (/var/tmp).
#   2. depth.py: a restore at depth 16 takes at most 20 x one link's time.
#
# RUN is a run of the Hugging Face Trainer with optimizer.pt, in F32 for the dearest links; without it, the fine-tune that `make bench` trains is
# taken. About an hour for 10 GB, on a machine that does nothing else. The status is 0 only when both hold.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${BUILD:-$root/build}" && pwd)
run=${1:-$build/bench/runs/seed-11/finetune}
[ -d "$run" ] || { echo "large.sh: there is no run '$run': name one, or let \`make bench\` train it"; exit 1; }
python=${PYTHON:-$build/bench/venv/bin/python}
if ! "$python" -c 'import torch, numpy' 2>/dev/null; then
	"$root/tools/venv.sh" "$build/bench/venv-torch" torch numpy safetensors >&2
	python=$build/bench/venv-torch/bin/python
fi
export BUILD=$build PYTHON=$python

failed=0
echo "## memory, ${LARGE_SIZE:=10000000000} bytes a checkpoint"
"$root/tests/large/memory.sh" "$run" "$LARGE_SIZE" state || failed=1
echo '## depth'
"$PYTHON" -B "$root/tools/bench/depth.py" --build "$build" "$run" || failed=1
exit $failed
