"""Do tensors in torch files cost what the same tensors cost in safetensors, within 1 %?

Consecutive checkpoints of a run are stored twice, each time in a fresh store: the files as the framework wrote them, and their tensors
under the same names written by safetensors. What is compared is the sum of what the tensors cost, without headers and pickles.
"""
import json
import pathlib
import shutil
import subprocess

import torch
from safetensors.torch import save_file

TOLERANCE = 0.01
FILES = {"hf-limit1": "checkpoint-*/optimizer.pt", "lightning": "step=*.ckpt"}  # of the copies that the trainers made


def tensors_in(value, prefix=""):
    """(name, tensor) of all that a torch file holds, by the keys that lead there."""
    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from tensors_in(below, f"{prefix}.{key}" if prefix else str(key))


def rewrite(path, target):
    kept, seen = {}, set()
    for name, tensor in tensors_in(torch.load(path, weights_only=True)):
        if tensor.untyped_storage().data_ptr() not in seen:  # a storage is in a torch file once
            seen.add(tensor.untyped_storage().data_ptr())
            kept[name] = tensor.contiguous()
    save_file(kept, target)


def cost(build, store, files):
    """Bytes stored for tensors, and their size, over the files as one run."""
    shutil.rmtree(store, ignore_errors=True)
    stored = size = 0
    for step, path in files:
        base = [str(build / "tpdectl"), "--store", str(store), "--quiet", "--json"]
        subprocess.run([*base, "ingest", str(path), "--run", "r", "--step", str(step)], check=True, stdout=subprocess.DEVNULL)
        shown = json.loads(subprocess.run([*base, "show", f"r@{step}", "--tensors"], check=True, stdout=subprocess.PIPE).stdout)
        for tensor in (tensor for file in shown["files"] for tensor in file["tensors"]):
            stored, size = stored + tensor["stored"], size + tensor["size"]
    return stored, size


def step_of(path, pattern):
    name = path.parent.name if "/" in pattern else path.stem
    return int(name.replace("=", "-").rsplit("-", 1)[1])


def check(build, root, scenarios, say):
    failures, scratch = [], root / "bits"
    for run, pattern in FILES.items():
        if run not in {scenario.run for scenario in scenarios}:
            continue
        files = sorted((step_of(path, pattern), path) for path in pathlib.Path(root, "kept", run).glob(pattern))[:5]
        (scratch / run).mkdir(parents=True, exist_ok=True)
        others = [(step, scratch / run / f"tensors-{step}.safetensors") for step, _ in files]
        for (_, path), (_, target) in zip(files, others):
            rewrite(path, target)
        ours, size = cost(build, scratch / "torch", files)
        theirs, other_size = cost(build, scratch / "safetensors", others)
        more = ours / theirs - 1
        say(f"bits: {len(files)} of {run}'s {pattern.rsplit('/', 1)[-1]}: {size} bytes of tensors stored in {ours}; as safetensors "
            f"{other_size} in {theirs}: {100 * more:+.2f} %")
        if abs(more) > TOLERANCE or size != other_size:
            failures.append(f"{run}: tensors cost {100 * more:+.2f} % of what they cost in safetensors ({ours} for {theirs} bytes)")
    return failures
