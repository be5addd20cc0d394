#!/bin/bash
# run.sh [OPTION...] - `make check-frameworks`: real frameworks train small models on this machine's CPU while tpded watches; what it
# stored must be what they wrote. The options are run.py's.
#
# PyTorch and the frameworks on it are brought into $BUILD/frameworks/venv, or taken from FRAMEWORKS_VENV=DIR; JAX, Orbax and Keras, which
# must do without PyTorch, into $BUILD/frameworks/venv-jax, or FRAMEWORKS_VENV_JAX=DIR. Their versions are pinned: what is tested is how
# these write. The product itself needs no Python.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${BUILD:-$root/build}
mkdir -p "$build/frameworks"
build=$(cd "$build" && pwd)
venv=${FRAMEWORKS_VENV:-$build/frameworks/venv}
venv_jax=${FRAMEWORKS_VENV_JAX:-$build/frameworks/venv-jax}
packages=(torch transformers==5.23.0 accelerate==1.15.0 peft==0.21.2 lightning==2.6.6 safetensors==0.8.0
	megatron-core==0.16.0 torchao==0.18.0 bitsandbytes==0.50.2 onnx==1.23.2 tyro==1.0.17)
packages_jax=(jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8 flax==0.12.8 optax==0.2.8 keras==3.15.1 h5py==3.16.0)
# What they depend on, beside tyro, is not needed for the part that is tested.
alone=(torchtitan==0.3.0 gguf==0.19.0)
deepspeed=deepspeed==0.19.8

# Into the first environment, when it is new.
add() {
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# Beside the first: pip is busy with one CPU. What both would ask apt-get for comes before.
jax=
if [ -z "${FRAMEWORKS_VENV_JAX:-}" ]; then
	"$root/tools/setup.sh" python
	"$root/tools/venv.sh" "$venv_jax" "${packages_jax[@]}" &
	jax=$!
fi
if [ -z "${FRAMEWORKS_VENV:-}" ]; then
	"$root/tools/venv.sh" "$venv" "${packages[@]}"
	if ! "$venv/bin/python" -c 'import importlib.metadata as m; m.version("torchtitan"), m.version("gguf")' 2>/dev/null; then
		echo "Adding to it: $deepspeed ${alone[*]}"
		# DeepSpeed's build asks the torch that is there already, so it comes second and without an environment of its own.
		DS_BUILD_OPS=0 add --no-build-isolation "$deepspeed"
		add --no-deps "${alone[@]}"
	fi
fi
[ -z "$jax" ] || wait "$jax"
exec "$venv/bin/python" -B "$root/tests/frameworks/run.py" --build "$build" --jax "$venv_jax/bin/python" "$@"
