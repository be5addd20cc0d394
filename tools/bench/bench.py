#!/usr/bin/env python3
"""Measure tpded and its peers on training runs; run.sh brings what this needs and calls it.

    bench.py --build DIR [--passes N] [--slow all|some|none] [--efforts EFFORT...] [--results FILE] -- RUNS...

For each run: the real programs store it and give it back, with every effort and dependence (store.py); the codec alone is timed in
memory (speed.py); and the peers get the same tensors (peers.py). Each row's contenders are measured one after the other on the same
bytes. claims.py judges, report.py makes the tables and plot.py the picture, of what is written to the results file alone:

    report.py results.json       prints them again; status 1 when a claim does not hold
"""
import argparse
import json
import os
import pathlib
import platform
import re
import signal
import sys
import tempfile
from importlib import metadata

import claims
import peers
import plot
import report
import runs
import speed
import store
from programs import Result

FAST = tuple(name for name in peers.TEXT if name not in peers.SLOW)


def peers_of(checkpoint, before, names, passes, threads, scratch):
    """role: {bytes, dtype, tensors, peers, on all threads}."""
    found = {}
    for role in checkpoint.by_role:
        x, dtype = checkpoint.blob(role), checkpoint.dtypes[role]
        p = checkpoint.like(role, before) if before else None
        found[role] = {"bytes": len(x), "dtype": dtype, "tensors": checkpoint.tensor_count(role),
                       "peers": peers.measure(names, x, p, dtype, passes, threads, scratch)}
        if role == runs.WEIGHTS and len(x) > 1 << 22:
            found[role]["all_threads"] = peers.on_all_threads(x, p, dtype, passes, threads)
    return found


def slow_at(slow, index, count):
    """Is this one of the checkpoints (0: the first) for which the slow peers are measured?"""
    return slow == "all" or (slow == "some" and index in (0, (count + 1) // 2))


def measure_run(args, forms, scratch, name, run):
    checkpoints = runs.steps_of(run)
    program = args.build / "bench" / "codec_speed"
    result = {"name": name, "kind": run.name, "configurations": {}, "checkpoints": [], "base": None}
    ties = {}
    for effort in args.efforts:
        for depend in store.DEPENDS:
            records, ties = store.all_of_run(args.build, scratch, name, checkpoints, effort, depend, args.threads)
            result["configurations"][f"{effort}/{depend}"] = records
        print(f"  {name}: stored and restored, {effort}", file=sys.stderr, flush=True)
    records, _ = store.all_of_run(args.build, scratch, name, checkpoints, "max", "optimizer", args.threads, store.ANCHORED_DEPTH)
    result["configurations"][store.ANCHORED] = records
    earlier, before, first = None, None, next(iter(checkpoints.values()))
    for index, (step, path) in enumerate(checkpoints.items()):
        checkpoint = runs.Checkpoint(path)
        names = [*FAST, *(peers.SLOW if slow_at(args.slow, index, len(checkpoints)) else ())]
        record = {"step": step, "bytes": checkpoint.size, "others": checkpoint.others(),
                  "around": peers.around(checkpoint.around, before.around if before else None),
                  "roles": peers_of(checkpoint, before, names, args.passes, args.threads, scratch), "codec": {}}
        if (path / speed.MODEL).is_file():
            record["codec"] = ({"keyframe": speed.of_keyframe(program, args.passes, path)} if before is None else
                               speed.of_pair(program, args.passes, args.threads, scratch, (earlier, before, checkpoint), first, ties, forms))
        result["checkpoints"].append(record)
        earlier, before = before, checkpoint
        print(f"  {name}@{step}", file=sys.stderr, flush=True)
    base = runs.base_of(run)
    if run.name in ("finetune", "bf16") and base and store.can_have_base(args.build):
        step, path = next(iter(checkpoints.items()))
        result["base"] = {depend: store.first_on_base(args.build, scratch, name, step, path, base, depend, args.threads)
                          for depend in store.DEPENDS}
    return result


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def first_line(*command):
    try:
        return Result(*command).out.splitlines()[0]
    except (SystemExit, IndexError):
        return "?"


def machine(build):
    compiler = (build / "flags").read_text().split()[0]
    xdelta3 = re.search(r"version (\S+)", Result("sh", "-c", "xdelta3 -V 2>&1").out)
    return {
        "cpu": cpu_name(), "cpus": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "kernel": platform.release(),
        "versions": {
            "tpded": first_line(build / "tpdectl", "--version"), "compiler": first_line(compiler, "--version"),
            "libzstd": first_line("pkg-config", "--modversion", "libzstd"),
            "zstd -3 of the peers": ".".join(map(str, peers.zstandard.ZSTD_VERSION)),
            "zstd, the program": re.sub(r".*v([\d.]+).*", r"\1", first_line("zstd", "--version")),
            "xdelta3": xdelta3[1].rstrip(",") if xdelta3 else "?", "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("zipnn", "pcodec", "openzl", "zstandard", "numpy", "torch")},
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True, help="where tpdectl and bench/codec_speed are")
    parser.add_argument("--passes", type=int, default=3, help="each time is the median of so many")
    parser.add_argument("--slow", choices=("all", "some", "none"), default="some", help="zstd -19, xdelta3 and such: for every "
                        "checkpoint, for the first and the middle one of each run, or not at all")
    parser.add_argument("--efforts", nargs="+", choices=store.EFFORTS, default=store.EFFORTS, help="`balanced` and `max` are judged")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="what \"all threads\" means")
    parser.add_argument("--results", type=pathlib.Path, help="else results.json in bench/ of the build")
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without taking the scratch directory away

    for root in args.runs:
        if not root.is_dir():
            sys.exit(f"bench: '{root}' is not a directory")
    found = runs.name_runs(args.runs)
    if not found:
        sys.exit("bench: no run with two checkpoints there")
    path = args.results or args.build / "bench" / "results.json"
    program = args.build / "bench" / "codec_speed"
    some_file = next(iter(runs.files_of(next(iter(runs.steps_of(next(iter(found.values()))).values())))))
    forms = [form for form in ("avx512", "avx2") if speed.has_form(program, form, some_file)]
    results = {"threads": args.threads, "passes": args.passes, "slow": args.slow, "forms": forms, "machine": machine(args.build),
               "runs": []}
    for name, run in found.items():
        print(f"{name}: {run}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="scratch-", dir=args.build / "bench") as scratch:
            results["runs"].append(measure_run(args, forms, pathlib.Path(scratch), name, run))
    results["claims"] = claims.of(results)
    path.write_text(json.dumps(results, indent=1) + "\n")
    text = report.text(results)
    path.with_suffix(".md").write_text(text)
    path.with_suffix(".svg").write_text(plot.picture(results))
    print(text)
    print(f"Every figure: {path}; the tables: {path.with_suffix('.md')}; the picture: {path.with_suffix('.svg')}", file=sys.stderr)
    return 0 if claims.hold(results["claims"]) else 1


if __name__ == "__main__":
    sys.exit(main())
