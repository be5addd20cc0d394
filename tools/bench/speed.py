"""The codec alone, in memory: codec_speed on the weights and the optimizer's state of each adjacent pair of a run.

Variants of the weights: plain (nothing is predicted; also on all threads), predicted (from both checkpoints' moments), and both with
TPD_CPU=avx2. The predicted ones need to be told which moment is of which weight: store.py's ties say so.
"""
import json
import os
import sys

import numpy as np
from safetensors.numpy import save_file

import runs
from programs import Result

MODEL, OPTIMIZER = "model.safetensors", "optimizer.pt"
INPUTS = {"m": runs.EXP_AVG, "v": runs.EXP_AVG_SQ}


def _codec(program, passes, *arguments, form=None):
    environment = {**os.environ, "TPD_CPU": form} if form else None
    result = json.loads(Result(program, "--passes", passes, *arguments, env=environment).out)
    if result["mismatches"]:
        sys.exit(f"bench: the codec's own check failed on {arguments[-1]}")
    return result


def _as_floats(data, dtype):
    if dtype == "bfloat16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return data.view(np.float16).astype(np.float32) if dtype == "float16" else data.view(np.float32)


def _write_moments(checkpoint, ties, prefix, scratch):
    """Files of the moments as F32 under the weights' names: the options that name them."""
    options = []
    for letter, role in INPUTS.items():
        named = {ties[name][1]: _as_floats(data, checkpoint.dtypes[role])
                 for name, data in checkpoint.by_role.get(role, {}).items() if name in ties}
        if named:
            path = scratch / f"{letter}{prefix}.safetensors"
            save_file(named, path)
            options += [f"--{letter}{prefix}", path]
    return options


def has_form(program, form, path):
    """Does this CPU run it?"""
    try:
        _codec(program, 1, path, form=form)
    except SystemExit:
        return False
    return True


def of_keyframe(program, passes, path):
    return _codec(program, passes, path / MODEL)


def _write_earlier(checkpoint, scratch):
    """w0 as F32: the option that names it."""
    if checkpoint is None:
        return []
    dtype, path = checkpoint.dtypes[runs.WEIGHTS], scratch / "w0.safetensors"
    save_file({name: _as_floats(data, dtype) for name, data in checkpoint.by_role[runs.WEIGHTS].items()}, path)
    return ["--w0", path]


def of_pair(program, passes, threads, scratch, last, first, ties, forms):
    """last: Checkpoints earlier (or None), before and now; first: where the chain began. Variant: what codec_speed says."""
    earlier, before, now = last
    weights = (before.path / MODEL, now.path / MODEL)
    found = {"plain": _codec(program, passes, "--threads", threads, *weights)}
    inputs = [*_write_moments(before, ties, 1, scratch), *_write_moments(now, ties, 2, scratch)]
    if len(inputs) == 2 * 2 * len(INPUTS):
        inputs += _write_earlier(earlier, scratch)
        found["predicted"] = _codec(program, passes, *inputs, *weights)
        found["low rank"] = _codec(program, passes, "--low-rank", *inputs, *weights)  # as with effort = max
    if "avx2" in forms:
        found["plain, avx2"] = _codec(program, passes, *weights, form="avx2")
        if "predicted" in found:
            found["predicted, avx2"] = _codec(program, passes, *inputs, *weights, form="avx2")
    if (now.path / OPTIMIZER).is_file() and (before.path / OPTIMIZER).is_file():
        found["optimizer"] = _codec(program, passes, "--types", first / OPTIMIZER, before.path / OPTIMIZER, now.path / OPTIMIZER)
    return found
