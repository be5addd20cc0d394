#!/bin/bash
# training.sh [OPTION...] - `make bench-training`: how much slower a training run is with tpded beside it, and how much CPU time that takes.
# training.py says how it is measured; the options are its own. 45 minutes at full length, on a machine that does nothing else.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${BUILD:-$root/build}" && pwd)
mkdir -p "$build/bench"
python=${PYTHON:-$build/bench/venv/bin/python}
if ! "$python" -c 'import torch, numpy, safetensors' 2>/dev/null; then
	"$root/tools/venv.sh" "$build/bench/venv-torch" torch numpy safetensors >&2
	python=$build/bench/venv-torch/bin/python
fi
exec "$python" -B "$root/tools/bench/training.py" --build "$build" --results "$build/bench/training.json" "$@"
