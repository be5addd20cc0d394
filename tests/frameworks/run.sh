#!/bin/bash
# run.sh [OPTION...] - `make check-frameworks`: real frameworks train small models on this machine's CPU while tpded watches; what it
# stored must be what they wrote. The options are run.py's.
#
# PyTorch and the frameworks are brought into $BUILD/frameworks/venv, or taken from FRAMEWORKS_VENV=DIR. Their versions are pinned: what
# is tested is how these write. The product itself needs no Python.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
mkdir -p "$build/frameworks"
build=$(cd "$build" && pwd)
venv=${FRAMEWORKS_VENV:-$build/frameworks/venv}
packages=(torch transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 lightning==2.6.6 safetensors==0.8.0)
deepspeed=deepspeed==0.19.8

# DeepSpeed's build asks the torch that is there already, so it comes second and without an environment of its own.
if [ -z "${FRAMEWORKS_VENV:-}" ]; then
	"$root/tools/venv.sh" "$venv" "${packages[@]}"
	if ! "$venv/bin/python" -c 'import importlib.metadata as m; m.version("deepspeed")' 2>/dev/null; then
		echo "Adding to it: $deepspeed"
		DS_BUILD_OPS=0 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation "$deepspeed"
	fi
fi
exec "$venv/bin/python" -B "$root/tests/frameworks/run.py" --build "$build" "$@"
