"""Are stored files known as what they are, and their tensors by their names?

Of every stored file whose name tells its format, the store must know that format. And of the newest checkpoint of the runs in READERS,
the names of its tensors must be those that the format's own package reads from the copy that the trainer made.
"""
import logging
import pathlib
import re
from collections import Counter

import torch
from safetensors import safe_open

SMALLEST = 64  # bytes: tensors below are not kept apart
KINDS = {".safetensors": {"safetensors"}, ".pt": {"torch-zip", "torch-legacy"}, ".pth": {"torch-zip"}, ".bin": {"torch-zip"},
         ".ckpt": {"torch-zip", "torch-legacy"}, ".distcp": {"torch-distcp"}, ".gguf": {"gguf"}, ".npz": {"npz"}, ".npy": {"npy"},
         ".onnx": {"onnx"}, ".data": {"onnx-data"}}


def read_gguf(path):
    import gguf
    return {tensor.name: tensor.n_bytes for tensor in gguf.GGUFReader(path).tensors}


def read_npz(path):
    import numpy
    with numpy.load(path) as arrays:
        return {name: arrays[name].nbytes for name in arrays.files}


def read_onnx(path):
    import onnx
    return {tensor.name: onnx.numpy_helper.to_array(tensor, str(path)).nbytes
            for tensor in onnx.load(path / "model.onnx", load_external_data=False).graph.initializer}


def read_torchao(path):
    """Its tensors are subclasses of several plain ones each."""
    logging.disable(logging.WARNING)  # it says which of its GPU libraries cannot be loaded
    import torchao  # noqa: F401: torch.load wants its classes
    logging.disable(logging.NOTSET)
    found = {}
    for name, tensor in torch.load(path, weights_only=False).items():
        parts = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
        found.update({f"{name}.{part}": getattr(tensor, part).nbytes for part in parts} if parts else {name: tensor.nbytes})
    return found


def read_safetensors(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).nbytes for name in file.keys()}


READERS = {"gguf": read_gguf, "npz": read_npz, "onnx": read_onnx, "torchao": read_torchao, "bitsandbytes": read_safetensors}


def check_names(root, run, source, shown):
    found = {tensor["name"]: tensor["size"] for file in shown["files"] for tensor in file.get("tensors", ())}
    if run == "torchao":  # a pickle names no arguments: the parts are in the fourth one of what rebuilds the whole
        found = {re.sub(r"\.3\.(\w+)$", r".\1", name): size for name, size in found.items()}
    expected = READERS[run](pathlib.Path(root, "kept", run, pathlib.Path(source).name))
    expected = {name: size for name, size in expected.items() if size >= SMALLEST}
    if found == expected:
        return []
    return [f"{run}: tensors are known as {sorted(found.items())[:6]}..., not {sorted(expected.items())[:6]}..."]


def check(tpded, root, scenarios, say):
    failures, kinds = [], Counter()
    newest = {item["run"]: item for item in tpded.listed()}
    for run, item in sorted(newest.items()):
        shown = tpded.ask("show", item["name"], "--tensors")
        for file in shown["files"]:
            wanted = KINDS.get(pathlib.Path(file["path"]).suffix)
            if file["type"] != "file" or not wanted:
                continue
            kinds[file["format"]] += 1
            if file["format"] not in wanted:
                failures.append(f"{item['name']}: '{file['path']}' is stored as {file['format']}")
        if run in READERS:
            failures += check_names(root, run, item["source"], shown)
            say(f"tensors: {run}: {sum(len(file.get('tensors', ())) for file in shown['files'])} names")
    say("tensors: of the newest checkpoint of each run, files: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    return failures
