#!/usr/bin/env python3
"""Measure tpded and its peers on training runs; run.sh brings what this needs and calls it.

    bench.py --build DIR [--passes N] [--results FILE] RUNS...

For each run: all checkpoints are ingested in order into a fresh store and restored again by the real programs (wall
time), and for each file of each checkpoint the codec alone (codec_speed) and the peers are measured in memory on the
same bytes. report.py makes the tables and the claims of what is written to the results file.
"""
import argparse
import filecmp
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import peers
import report

FILES = ("model.safetensors", "optimizer.pt")
THREADS = 2  # of tpdectl


def steps_of(run):
    """step: directory, for each checkpoint of a run."""
    found = {}
    for path in run.iterdir():
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and (path / FILES[0]).is_file():
            found[int(match[1])] = path
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


def call(*command):
    """Standard output of a program that must succeed, and its wall time."""
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))}: status {done.returncode}\n{done.stderr}")
    return done.stdout, seconds


def warm(directory):
    for path in directory.rglob("*"):
        if path.is_file():
            path.read_bytes()


def same_files(a, b):
    names = sorted(path.relative_to(a) for path in a.rglob("*") if path.is_file())
    if names != sorted(path.relative_to(b) for path in b.rglob("*") if path.is_file()):
        return False
    return all(filecmp.cmp(a / name, b / name, shallow=False) for name in names)


def object_bytes(store, shown):
    """For each path the bytes on disk of its parts (index and all) and of the payloads in them; the manifest's."""
    directory = max((store / "objects" / shown["id"][:2]).glob(shown["id"] + ".*"),
                    key=lambda path: int(path.suffix[1:]))
    sizes, number = {}, 0
    for entry in shown["files"]:
        if entry["type"] == "file":
            parts = sum(part.stat().st_size for part in directory.glob(f"f{number:05}.p*"))
            if parts < entry["stored"]:
                sys.exit(f"bench: the parts of '{entry['path']}' are smaller than tpdectl says")
            sizes[entry["path"]] = {"parts": parts, "payload": entry["stored"]}
            number += 1
    return sizes, (directory / "manifest").stat().st_size


def whole_programs(tpdectl, scratch, name, checkpoints):
    """Ingest in order, restore each: one record a checkpoint. The sources are in the page cache."""
    store, records = scratch / "store", []
    base = (tpdectl, "--store", store, "--json", "--threads", THREADS)
    for step, directory in checkpoints.items():
        warm(directory)
        out, seconds = call(*base, "ingest", directory, "--run", name, "--step", step)
        shown = json.loads(call(*base, "show", f"{name}@{step}")[0])
        files, manifest = object_bytes(store, shown)
        reference = shown["reference"] and int(re.search(r"@(\d+)", shown["reference"])[1])
        records.append({"step": step, "reference": reference, "depth": shown["depth"], "bytes": shown["size"],
                        "stored": shown["stored"], "files": files, "manifest": manifest, "ingest_seconds": seconds})
    for record, directory in zip(records, checkpoints.values()):
        target = scratch / "restored"
        _, record["restore_seconds"] = call(*base, "restore", f"{name}@{record['step']}", "--to", target)
        if not same_files(directory, target):
            sys.exit(f"bench: '{directory}' came back different")
        shutil.rmtree(target)
    shutil.rmtree(store)
    return records


def codec(program, passes, first, *files):
    result = json.loads(call(program, "--passes", passes, "--types", first, *files)[0])
    if result["mismatches"]:
        sys.exit(f"bench: the codec's own check failed on {files[-1]}")
    return result


def in_memory(program, passes, record, path, reference, first):
    """One file against the same one of its reference (None: a keyframe), by the codec and by the peers."""
    file = peers.File(path)
    before = peers.File(reference) if reference else None
    stored = record["files"][path.name]
    coded = codec(program, passes, first, *([reference] if reference else []), path)
    if coded["bytes_out"] != stored["payload"]:
        sys.exit(f"bench: '{path}' is {stored['payload']} bytes in the store and {coded['bytes_out']} in memory: "
                 "codec_speed does not measure what an ingest does")
    return {
        "file": path.name, "step": record["step"], "reference": record["reference"],
        "dtype": file.dtype, "bytes": len(file.data), "stored": stored["parts"], "codec": coded,
        "zstd": peers.zstd(file, passes),
        "zipnn": peers.zipnn(file, passes),
        "zipnn_xor": peers.zipnn_xor(file, before, passes) if before else None,
    }


def measure_run(build, passes, scratch, name, run):
    checkpoints = steps_of(run)
    records = whole_programs(build / "tpdectl", scratch, name, checkpoints)
    measured, previous, first = [], None, None
    for record, directory in zip(records, checkpoints.values()):
        keyframe = record["reference"] is None
        first = directory if keyframe else first
        for file in FILES:
            # An anchor refers to its keyframe: it is in the figures of the whole run only.
            if (keyframe or record["reference"] == previous) and (directory / file).is_file():
                reference = None if keyframe else checkpoints[previous] / file
                measured.append(in_memory(build / "bench" / "codec_speed", passes, record, directory / file, reference,
                                          first / file))
        previous = record["step"]
        print(f"  {name}@{record['step']}", file=sys.stderr, flush=True)
    return {"name": name, "kind": run.name, "checkpoints": records, "files": measured}


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def first_line(*command):
    try:
        return call(*command)[0].splitlines()[0]
    except (OSError, IndexError):
        return "?"


def machine(build):
    compiler = (build / "flags").read_text().split()[0]
    return {
        "cpu": cpu_name(), "cpus": os.cpu_count(), "load": os.getloadavg()[0], "kernel": platform.release(),
        "versions": {
            "tpded": first_line(build / "tpdectl", "--version"), "compiler": first_line(compiler, "--version"),
            "libzstd": first_line("pkg-config", "--modversion", "libzstd"),
            "zstd of the peer": ".".join(map(str, peers.zstandard.ZSTD_VERSION)),
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("zipnn", "zstandard", "numpy", "torch")},
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="where tpdectl and bench/codec_speed are")
    parser.add_argument("--passes", type=int, default=3, help="each time is the median of so many")
    parser.add_argument("--results", type=pathlib.Path, help="else results.json in bench/ of the build")
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without taking the scratch directory away

    for root in args.runs:
        if not root.is_dir():
            sys.exit(f"bench: '{root}' is not a directory")
    runs = name_runs(args.runs)
    if not runs:
        sys.exit("bench: no run with two checkpoints there")
    results = {"threads": THREADS, "passes": args.passes, "machine": machine(args.build), "runs": []}
    for name, run in runs.items():
        print(f"{name}: {run}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="scratch-", dir=args.build / "bench") as scratch:
            results["runs"].append(measure_run(args.build, args.passes, pathlib.Path(scratch), name, run))
    results["claims"] = report.claims(results)
    path = args.results or args.build / "bench" / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(report.text(results))
    print(f"Every figure: {path}", file=sys.stderr)
    return 0 if report.hold(results["claims"]) else 1


if __name__ == "__main__":
    sys.exit(main())
