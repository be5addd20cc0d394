"""Do tensors in files of other formats cost what the same tensors cost in safetensors, within 1 %?

Consecutive checkpoints of a run are stored twice, each time in a fresh store: the files as the framework wrote them, and their tensors
under the same names written by safetensors. What is compared is the sum of what the tensors cost, without headers and pickles.
"""
import json
import logging
import pathlib
import re
import shutil
import subprocess

import torch
from safetensors.torch import save_file

TOLERANCE = 0.01
FILES = {  # of the copies that the trainers made
    "hf-limit1": "checkpoint-*/optimizer.pt",
    "accelerate": "checkpoint_*/optimizer.bin",
    "lightning": "step=*.ckpt",
    "deepspeed-zero2": "global_step*/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
    "torchao": "model-step*.pt",
    "npz": "model-step*.npz",
    "gguf": "model-step*.gguf",
    "onnx": "step-*",
}


def tensors_of_torch(value, prefix=""):
    """(name, tensor) of all that a torch file holds, by the keys that lead there."""
    if hasattr(value, "__tensor_flatten__"):
        value = {part: getattr(value, part) for part in value.__tensor_flatten__()[0]}
    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from tensors_of_torch(below, f"{prefix}.{key}" if prefix else str(key))


def tensors_in(path):
    if path.suffix == ".npz":
        import numpy
        with numpy.load(path) as arrays:
            return [(name, torch.from_numpy(arrays[name])) for name in arrays.files]
    if path.suffix == ".gguf":
        import gguf
        return [(tensor.name, torch.from_numpy(tensor.data.copy())) for tensor in gguf.GGUFReader(path).tensors]
    if path.is_dir():
        import onnx
        return [(tensor.name, torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()))
                for tensor in onnx.load(path / "model.onnx").graph.initializer]
    logging.disable(logging.WARNING)  # DeepSpeed, which its file imports, tells that there is no GPU
    value = torch.load(path, weights_only=False)  # some have classes in them; they are our own
    logging.disable(logging.NOTSET)
    return tensors_of_torch(value)


def rewrite(path, target):
    kept, seen = {}, set()
    for name, tensor in tensors_in(path):
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
        for tensor in (tensor for file in shown["files"] for tensor in file.get("tensors", ())):
            stored, size = stored + tensor["stored"], size + tensor["size"]
    return stored, size


def step_of(path, pattern):
    return int(re.findall(r"\d+", path.parent.name if "/" in pattern else path.name)[-1])


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
