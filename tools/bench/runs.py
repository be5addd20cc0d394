"""Training runs, and the bytes of a checkpoint by what they are: weights, moments, 16-bit copies of masters."""
import json
import os
import pathlib
import re
import struct
import zipfile

import numpy as np
import torch

# Of the roles, those that a bench compares; what else is in a checkpoint is its rest.
WEIGHTS, EXP_AVG, EXP_AVG_SQ, COPY = "weights", "exp_avg", "exp_avg_sq", "copy"
ROLES = (WEIGHTS, EXP_AVG, EXP_AVG_SQ, COPY)
MOMENTS = (EXP_AVG, EXP_AVG_SQ)
MIN_STORAGE = 64  # bytes
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
SAFETENSORS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def role_of(path, name):
    """What tpdectl's names, and ours below, say that a tensor is; None: something else."""
    if name.endswith("exp_avg"):
        return EXP_AVG
    if name.endswith("exp_avg_sq"):
        return EXP_AVG_SQ
    if path.endswith(".safetensors") or name.startswith("fp32_master."):
        return WEIGHTS
    return COPY if name.startswith("module.") else None


def steps_of(run):
    """step: directory or file, for each checkpoint of a run."""
    found = {}
    for path in run.iterdir():
        match = re.fullmatch(r"checkpoint-(\d+)|step-(\d+)\.pt", path.name)
        if match and (path.is_file() or any(path.glob("*.safetensors"))):
            found[int(match[1] or match[2])] = path
    return dict(sorted(found.items()))


def find_runs(root):
    """Directories at or below root with at least two checkpoints; hidden ones are left out."""
    if len(steps_of(root)) > 1:
        return [root]
    below = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [run for path in below if not re.fullmatch(r"checkpoint-\d+", path.name) for run in find_runs(path)]


def name_runs(roots):
    """name: directory. A name is the path below what all runs share; a store takes it, and it tells two seeds apart."""
    found = dict.fromkeys(run for root in roots for run in find_runs(pathlib.Path(os.path.abspath(root))))
    if not found:
        return {}
    shared = os.path.commonpath([run.parent for run in found])
    return {re.sub(r"[^A-Za-z0-9._/-]", "_", str(run.relative_to(shared))): run for run in found}


def base_of(run):
    """The model that make_checkpoints.py fine-tuned; None where it cannot be told."""
    found = sorted(run.parent.glob(".make_checkpoints/base-*/model.safetensors"))
    found = [path for path in found if not path.parent.name.startswith("base-run")]
    return found[0].parent if len(found) == 1 else None


def files_of(checkpoint):
    return sorted(path for path in checkpoint.rglob("*") if path.is_file()) if checkpoint.is_dir() else [checkpoint]


def _safetensors(path):
    data = np.fromfile(path, np.uint8)
    length = struct.unpack("<Q", data[:8].tobytes())[0]
    header = json.loads(data[8:8 + length].tobytes())
    header.pop("__metadata__", None)
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = tensor["data_offsets"]
        yield name, SAFETENSORS.get(tensor["dtype"]), data[8 + length + begin:8 + length + end]


def _walk(value, name):
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().reshape(-1)
        yield name, str(value.dtype).removeprefix("torch."), flat.view(torch.uint8).numpy() if flat.numel() else None
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, f"{name}.{key}" if name else str(key))


def _without_storages(path):
    """What torch.save() put around its tensors: the file but for all storages that hold more than a scalar."""
    data = np.fromfile(path, np.uint8)
    keep = np.ones(len(data), bool)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if re.search(r"/data/\d+$", member.filename) and member.file_size >= MIN_STORAGE:
                lengths = struct.unpack("<HH", data[member.header_offset + 26:member.header_offset + 30].tobytes())
                begin = member.header_offset + 30 + sum(lengths)
                keep[begin:begin + member.file_size] = False
    return data[keep]


class Checkpoint:
    """by_role[role]: {name: bytes}, each role of one type; size: of all files; around: the bytes that are in no tensor."""

    def __init__(self, path):
        self.path = path
        self.size = sum(file.stat().st_size for file in files_of(path))
        found, around = {role: {} for role in ROLES}, []
        for file in files_of(path):
            if file.name.endswith(".safetensors"):
                tensors = _safetensors(file)
                around.append(np.fromfile(file, np.uint8, 8 + struct.unpack("<Q", file.open("rb").read(8))[0]))
            elif file.name == "optimizer.pt" or file == path:
                tensors = _walk(torch.load(file, map_location="cpu", weights_only=True), "")
                around.append(_without_storages(file))
            else:
                around.append(np.fromfile(file, np.uint8))
                continue
            for name, dtype, data in tensors:
                role = role_of(file.name, name)
                if role and dtype in WIDTHS and data is not None:
                    found[role].setdefault(dtype, {})[name] = data
        self.around, self.by_role, self.dtypes = np.concatenate(around), {}, {}
        for role, types in found.items():
            if types:
                dtype = max(types, key=lambda t: sum(map(len, types[t].values())))
                self.dtypes[role], self.by_role[role] = dtype, types[dtype]

    def blob(self, role):
        """The role's tensors, one after the other."""
        return np.concatenate(list(self.by_role[role].values()))

    def like(self, role, other):
        """The same ones of another checkpoint, in our order; zeros for what it does not have in this size."""
        theirs = other.by_role.get(role, {})
        return np.concatenate([theirs[name] if name in theirs and len(theirs[name]) == len(data)
                               else np.zeros(len(data), np.uint8) for name, data in self.by_role[role].items()])

    def tensor_count(self, role):
        return len(self.by_role[role])

    def others(self):
        """Bytes of tensors that are in no role."""
        return self.size - len(self.around) - sum(len(data) for tensors in self.by_role.values() for data in tensors.values())
