"""What the real programs make of a run: all checkpoints are ingested in order into a fresh store, looked at, and restored.

For each checkpoint the bytes on disk (parts, index and manifest), and for each role in it (runs.py) what its tensors take: their
payloads, and of the parts' index what their chunks have of it. Times are wall time, with fsync and SHA-256, the sources in the
page cache.
"""
import filecmp
import json
import re
import shutil
import sys

import runs
from programs import Result

EFFORTS = ("fast", "balanced", "max")
DEPENDS = ("none", "weights", "optimizer")
# One more configuration, whose chains have anchors: runs of six checkpoints have none with the default depth.
ANCHORED, ANCHORED_DEPTH = "max/optimizer, max_depth = 3", 3
CHUNK = 1 << 17  # elements
WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2, "U16": 2}
# "No payload is ever larger than raw by more than 0.1 % plus 64 bytes a tensor."
RAW_SHARE, RAW_TENSOR = 1.001, 64


def warm(path):
    for file in runs.files_of(path):
        file.read_bytes()


def _same(source, target):
    """Is what was restored what was stored?"""
    if source.is_file():
        return filecmp.cmp(source, target / source.name, shallow=False)
    names = [path.relative_to(source) for path in runs.files_of(source)]
    return names == [path.relative_to(target) for path in runs.files_of(target)] and all(
        filecmp.cmp(source / name, target / name, shallow=False) for name in names)


def _object(store, shown):
    """The directory of a checkpoint's newest object."""
    return max((store / "objects" / shown["id"][:2]).glob(shown["id"] + ".*"), key=lambda path: int(path.suffix[1:]))


def _chunks(tensor):
    return -(-tensor["size"] // (CHUNK * WIDTHS.get(tensor["dtype"], 1)))


def look(store, shown):
    """What a record says of the bytes of a checkpoint that `show --tensors --json` described."""
    directory = _object(store, shown)
    roles = {role: {"tensors": 0, "raw": 0, "stored": 0.0, "payload": 0} for role in runs.ROLES}
    encodings, tensors, too_large, worst = {}, 0, [], 0.0
    files = [entry for entry in shown["files"] if entry["type"] == "file"]
    for number, entry in enumerate(files):
        parts = sum(part.stat().st_size for part in directory.glob(f"f{number:05}.p*"))
        inside = entry.get("tensors", [])
        chunks = sum(map(_chunks, inside))
        index = max(parts - entry["stored"], 0)
        tensors += len(inside)
        for tensor in inside:
            # Where all of a tensor is elsewhere it has no chunks here, and an index that is only the file's own.
            share = index * _chunks(tensor) / chunks if chunks and tensor["stored"] else 0
            over = tensor["stored"] - (tensor["size"] * RAW_SHARE + RAW_TENSOR)
            worst = max(worst, tensor["stored"] / max(tensor["size"], 1))
            if over > 0:
                too_large.append(f"{entry['path']}: {tensor['name']}")
            encoding = encodings.setdefault(tensor["encoding"], {"tensors": 0, "raw": 0, "stored": 0})
            role = roles.get(runs.role_of(entry["path"], tensor["name"]))
            for place in (encoding, role):
                if place is not None:
                    place["tensors"] += 1
                    place["raw"] += tensor["size"]
            encoding["stored"] += tensor["stored"]
            if role is not None:
                role["stored"] += tensor["stored"] + share
                role["payload"] += tensor["stored"]
    return {
        "stored": shown["stored"], "manifest": (directory / "manifest").stat().st_size, "tensors": tensors,
        "roles": {role: figures for role, figures in roles.items() if figures["tensors"]}, "encodings": encodings,
        "too_large": too_large, "worst": worst,
    }


class Store:
    """A fresh one for one configuration."""

    def __init__(self, build, scratch, effort, depend, threads, max_depth=None):
        self.path = scratch / f"store-{effort}-{depend}"
        self.target = scratch / "restored"
        self.command = (build / "tpdectl", "--store", self.path, "--json", "--threads", threads)
        self.options = ("--effort", effort, "--depend", depend)
        if max_depth:
            config = scratch / "tpded.conf"
            config.write_text(f"[store]\npath = {self.path}\nmax_depth = {max_depth}\n")
            self.options += ("--config", config)

    def ingest(self, name, step, path, *options):
        warm(path)
        done = Result(*self.command, "ingest", path, "--run", name, "--step", step, *self.options, *options)
        shown = self.show(name, step)
        reference = shown["reference"] and re.search(r"@(\d+)", shown["reference"])
        return {"step": step, "reference": int(reference[1]) if reference else None, "depth": shown["depth"],
                "bytes": shown["size"], "ingest_seconds": done.seconds, "ingest_cpu": done.cpu,
                "ingest_memory": done.memory, **look(self.path, shown)}

    def show(self, name, step):
        return json.loads(Result(*self.command, "show", f"{name}@{step}", "--tensors").out)

    def restore(self, name, step, path):
        done = Result(*self.command, "restore", f"{name}@{step}", "--to", self.target)
        if not _same(path, self.target):
            sys.exit(f"bench: '{path}' came back different")
        shutil.rmtree(self.target)
        return {"restore_seconds": done.seconds, "restore_cpu": done.cpu, "restore_memory": done.memory}

    def remove(self):
        shutil.rmtree(self.path)


def can_have_base(build):
    """Is there lineage across runs?"""
    return "--base" in Result(build / "tpdectl", "ingest", "--help").out


def all_of_run(build, scratch, name, checkpoints, effort, depend, threads, max_depth=None):
    """One record a checkpoint, and which tensor of the last one is the state of which: {state's name: (kind, owner's name)}."""
    store = Store(build, scratch, effort, depend, threads, max_depth)
    records = [store.ingest(name, step, path) for step, path in checkpoints.items()]
    ties = {}
    for entry in store.show(name, max(checkpoints))["files"]:
        for tensor in entry.get("tensors", []):
            for tie in tensor.get("ties", []):
                ties[tensor["name"]] = (tie["kind"], tie["name"])
    for record, path in zip(records, checkpoints.values()):
        record.update(store.restore(name, record["step"], path))
    store.remove()
    return records, ties


def first_on_base(build, scratch, name, step, path, base, depend, threads):
    """A run's first checkpoint, with the model that it began from."""
    store = Store(build, scratch, "max", depend, threads)
    record = store.ingest(name, step, path, "--base", base)
    record.update(store.restore(name, step, path))
    store.remove()
    return record
