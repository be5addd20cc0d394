#!/usr/bin/env python3
"""Real frameworks train with a running tpded, and what it stored is checked; run.sh brings what this needs and calls it.

    run.py --build DIR --jax PYTHON [--only RUN,...] [--settle SECONDS] [--skip resume,tensors,ties,cut,metrics,bits,churn]

One daemon watches a directory for each scenario (scenarios.py). The trainers (train_*.py) run three at a time (they wait more than they
work), each in a process of its own that notes what it writes (recorder.py). Then: is all of it stored (check_stored.py), does training go on from what is restored
as from the original (check_resume.py), are formats and tensors known (check_tensors.py), is an optimizer's state known to be that of
its weights (check_ties.py), does it cost nothing when ranks come or go (check_cut.py), are metrics stored with what they are of (check_metrics.py), do tensors of other formats cost what they
cost in safetensors (check_bits.py), and does the daemon survive a storm of files (check_churn.py)? The status is 0 only when all of
that holds.

--settle 0 must make it fail (torch-slow is enough): then a slow writer's checkpoints are taken half-written.
"""
import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import time

import check_bits
import check_churn
import check_cut
import check_metrics
import check_resume
import check_stored
import check_tensors
import check_ties
import scenarios
from daemon import Tpded

HERE = pathlib.Path(__file__).parent
TRAIN_TIMEOUT = 600  # seconds
AT_ONCE = 3  # programs


class Trainers:
    """Starts training programs; their output goes to logs of their own."""

    def __init__(self, root, jax, settle):
        self.root, self.jax = root, jax
        self.environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
                            "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu", "PYTHONDONTWRITEBYTECODE": "1",
                            "TMPDIR": str(root / "tmp"),
                            # Of train_torch.py. Reading takes time, too, and what changes meanwhile is void: a pause that shows a wrong
                            # settle= must be longer than that.
                            "SLOW_PAUSE": "0.35" if settle > 0 else "2"}

    def run(self, program, ranks, *words):
        """Standard output of a program that must succeed."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks > 1 else []
        python = self.jax if program in scenarios.WITHOUT_TORCH else sys.executable
        command = [python, "-B", *launcher, HERE / program, self.root, *words]
        log = self.root / "logs" / f"{pathlib.Path(program).stem}-{'-'.join(words)[-60:].replace('/', '_')}.log"
        with open(log, "w+", encoding="utf-8") as output:
            done = subprocess.run(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, env=self.environment,
                                  cwd=self.root, timeout=TRAIN_TIMEOUT)
            output.seek(0)
            text = output.read()
        if done.returncode != 0:
            own = "\n".join(line for line in text.splitlines() if line.startswith("[rank"))  # the launcher's own words are many
            raise RuntimeError(f"{program} {' '.join(words)}: status {done.returncode}:\n{(own or text)[-3000:]}")
        return text


def say(text):
    print(text, flush=True)


def train(trainers, program, ranks, runs):
    start = time.monotonic()
    trainers.run(program, ranks, *runs)
    say(f"trained: {', '.join(runs)} ({time.monotonic() - start:.0f} s)")


def train_all(trainers, chosen):
    """Those of most runs first. The first that fails ends it, once those that run have ended."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        started = [pool.submit(train, trainers, program, ranks, runs)
                   for (program, ranks), runs in sorted(scenarios.programs(chosen).items(), key=lambda each: -len(each[1]))]
        try:
            for each in concurrent.futures.as_completed(started):
                each.result()
        finally:
            pool.shutdown(cancel_futures=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--jax", required=True, type=pathlib.Path, help="the Python of the environment without torch")
    parser.add_argument("--only", default="", help="these scenarios, with commas between them")
    parser.add_argument("--settle", default=1.0, type=float, help="of the watches, in seconds")
    parser.add_argument("--skip", default="", help="of: resume, tensors, ties, cut, metrics, bits, churn")
    arguments = parser.parse_args()
    only, skip = set(filter(None, arguments.only.split(","))), set(filter(None, arguments.skip.split(",")))
    chosen = [scenario for scenario in scenarios.SCENARIOS if not only or scenario.run in only]
    build = arguments.build.resolve()
    root = build / "frameworks" / "work"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("records", "logs", "tmp", *(f"watched/{scenario.run}" for scenario in chosen)):
        (root / name).mkdir(parents=True)

    start, failures = time.monotonic(), []
    trainers = Trainers(root, arguments.jax, arguments.settle)
    watches = {scenario.run: root / "watched" / scenario.run for scenario in chosen}
    with Tpded(build, root, watches, f"{arguments.settle * 1000:.0f}ms") as tpded:
        train_all(trainers, chosen)
        tpded.wait_idle()
        table, found = check_stored.check(tpded, root, chosen, arguments.settle)
        say("\n" + table)
        failures += found
        if "resume" not in skip:
            failures += check_resume.check(tpded, trainers, chosen, say)
        if "tensors" not in skip:
            failures += check_tensors.check(tpded, root, chosen, say)
        if "ties" not in skip:
            failures += check_ties.check(tpded, chosen, say)
        if "cut" not in skip:
            failures += check_cut.check(tpded, chosen, say)
        if "metrics" not in skip:
            failures += check_metrics.check(tpded, chosen, say)
    if tpded.process.returncode != 0:
        failures.append(f"tpded ended with {tpded.process.returncode}")
    if "bits" not in skip:
        failures += check_bits.check(build, root, chosen, say)
    if "churn" not in skip:
        failures += check_churn.check(build, root / "churn", say)
    for failure in failures:
        say(f"frameworks: {failure}")
    say(f"\n{'FAILED' if failures else 'passed'} after {time.monotonic() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
