"""training.py --build DIR [--pairs N] [--interval SECONDS] [--results FILE] - what tpded costs a training run; `make bench-training`.

A language model of 7.4 M parameters is trained by AdamW on the Python library's source, in this process, on all CPUs. Every INTERVAL seconds
it saves what a Hugging Face Trainer would (weights, optimizer state), and that interval, with its save, is one measurement: steps a
second. In one of two neighbours tpded runs and stores what was saved; in the other there is no tpded. Which of the two comes first changes
from pair to pair (ABBA), so that whatever drifts cancels; before each there is the same rest. What is told is the mean of the pairs'
differences with its 95 % interval (Student's t), and the daemon's CPU seconds a GB that it was given. At least 20 pairs of 60 s make the
claim; less is a trial.

The claim: training is under 2 % slower, at the upper end of the interval.

On a shared machine one interval differs from the next by more than tpded costs. So the same difference is told of the first BUSY seconds after
each save alone, as a share of the whole interval: what the machine does in the rest counts for nothing then. Nor does what tpded does
there, which is next to nothing, as the CPU time that it takes in these seconds and in all shows; the claim is judged by the whole intervals.

tpded is scheduled as its unit has it (of the unit's weights in its control group there is nothing here) and has a thread a CPU, as by default.
As with save_total_limit=3 the last three checkpoints of either kind stay: references are read from the two before. A tpded that is never
stopped would hold on to their files in any case, but this one is started anew for each measurement, and without them it would have to put
its references together from their whole chain every time.
"""
import argparse
import collections
import glob
import itertools
import json
import math
import os
import pathlib
import platform
import re
import shutil
import statistics
import sys
import sysconfig
import tempfile
import time

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "frameworks"))
from daemon import Tpded  # noqa: E402

VOCABULARY, WIDTH, FEED_FORWARD, LAYERS, HEADS, CONTEXT, BATCH = 7200, 256, 688, 6, 8, 128, 8
PAIRS, INTERVAL, LIMIT_PERCENT = 20, 60, 2.0
BUSY = 15  # it stores such a checkpoint in two or three
REST, WARM_UP = 3, 5  # seconds and steps before each interval
KEPT = 3
UNIT = pathlib.Path(__file__).resolve().parents[2] / "systemd" / "tpded.service"


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.place = torch.nn.Embedding(CONTEXT, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, FEED_FORWARD, dropout=0, batch_first=True, norm_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.register_buffer("mask", torch.nn.Transformer.generate_square_subsequent_mask(CONTEXT), persistent=False)

    def forward(self, ids):
        return self.head(self.layers(self.embed(ids) + self.place.weight, mask=self.mask, is_causal=True))


def corpus():
    root = sysconfig.get_paths()["stdlib"]
    files = sorted(path for path in glob.glob(root + "/*.py"))
    words = re.findall(r"\w+|\s+|[^\w\s]", "".join(open(path, encoding="utf-8", errors="replace").read() for path in files))
    number = {word: i + 1 for i, (word, _) in enumerate(collections.Counter(words).most_common(VOCABULARY - 1))}
    return torch.tensor([number.get(word, 0) for word in words])


class Training:
    """A training loop that is asked for so many seconds of itself."""

    def __init__(self):
        torch.manual_seed(1)
        torch.set_num_threads(os.cpu_count())
        self.ids, self.model, self.step = corpus(), Model(), 0
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, weight_decay=0.1)

    def train_step(self):
        starts = torch.randint(len(self.ids) - CONTEXT - 1, (BATCH,))
        rows = torch.stack([self.ids[start:start + CONTEXT + 1] for start in starts])
        loss = torch.nn.functional.cross_entropy(self.model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss

    def save(self, directory):
        out = directory / f"checkpoint-{self.step}"
        out.mkdir()
        save_file(self.model.state_dict(), out / "model.safetensors", metadata={"format": "pt"})
        torch.save(self.optimizer.state_dict(), out / "optimizer.pt")
        (out / "trainer_state.json").write_text(json.dumps({"global_step": self.step}), encoding="utf-8")
        return out

    def run(self, seconds, directory, after_busy=lambda: None):
        """Save, and train on until they are over: (steps a second, the same of the first BUSY seconds, the checkpoint)."""
        time.sleep(REST)
        for _ in range(WARM_UP):
            self.train_step()
        before, started = self.step, time.perf_counter()
        saved, busy = self.save(directory), None
        while (passed := time.perf_counter() - started) < seconds:
            if busy is None and passed >= BUSY:
                busy = (self.step - before) / passed
                after_busy()
            self.train_step()
        rate = (self.step - before) / (time.perf_counter() - started)
        if busy is None:
            busy = rate
            after_busy()
        return rate, busy, saved


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def size_of(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def setting_of_unit(name):
    return re.search(rf"^{name}=(\w+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE).group(1)


def rotate(directory):
    """As a Trainer does by save_total_limit."""
    for old in sorted(directory.iterdir(), key=lambda path: int(path.name.split("-")[1]))[:-KEPT]:
        shutil.rmtree(old)


class Bench:
    def __init__(self, build, directory, interval):
        self.build, self.directory, self.interval = build, directory, interval
        self.watched, self.elsewhere = directory / "watched", directory / "elsewhere"
        self.watched.mkdir()
        self.elsewhere.mkdir()
        self.training = Training()
        self.prefix = ["nice", "-n", setting_of_unit("Nice"), "chrt", f"--{setting_of_unit('CPUSchedulingPolicy')}", "0"]
        self.forget()

    def forget(self):
        self.cpu, self.cpu_busy, self.bytes = 0.0, 0.0, 0

    def without(self):
        rate, busy, _ = self.training.run(self.interval, self.elsewhere)
        rotate(self.elsewhere)
        return rate, busy

    def with_tpded(self):
        """The daemon is there before the time begins, and must have stored what was saved when it ends: its neighbour pays for nothing."""
        with Tpded(self.build, self.directory, {"training": self.watched}, prefix=self.prefix, threads=0) as tpded:
            tpded.wait_idle(quiet=1)
            before, at = cpu_seconds(tpded.process.pid), []
            rate, busy, saved = self.training.run(self.interval, self.watched, lambda: at.append(cpu_seconds(tpded.process.pid)))
            if not any(row["step"] == int(saved.name.split("-")[1]) for row in tpded.listed()):
                raise SystemExit(f"training.py: '{saved.name}' is not stored after {self.interval:g} s, and what it costs would be told too low:\n"
                                 f"{tpded.log_text()[-2000:]}")
            tpded.wait_idle(quiet=1)
            self.cpu += cpu_seconds(tpded.process.pid) - before
            self.cpu_busy += at[0] - before
            self.bytes += size_of(saved)
        rotate(self.watched)
        return rate, busy


def quantile_of_t(freedom):
    """0.975 of Student's t: Cornish and Fisher's expansion, good to 0.001 from 8 degrees of freedom on."""
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2) + (
        3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)


def mean_and_half(values):
    """And half the width of its 95 % interval."""
    return statistics.fmean(values), quantile_of_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--interval", type=float, default=INTERVAL)
    parser.add_argument("--results", type=pathlib.Path)
    options = parser.parse_args()
    if options.pairs < 2:
        parser.error("an interval takes two pairs at least")
    window = min(BUSY, options.interval)

    pairs = []
    with tempfile.TemporaryDirectory(prefix="tpded-training.", dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        bench = Bench(options.build, pathlib.Path(name), options.interval)
        parameters = sum(p.numel() for p in bench.training.model.parameters())
        print(f"{parameters} parameters, {os.cpu_count()} CPUs, torch {torch.__version__}, {options.pairs} pairs of 2 x {options.interval:g} s")
        bench.without()  # warms up, and is not counted
        bench.with_tpded()  # the first of its run is a keyframe
        bench.forget()
        for number, with_first in zip(range(options.pairs), itertools.cycle((True, False))):
            if with_first:
                on, off = bench.with_tpded(), bench.without()
            else:
                off, on = bench.without(), bench.with_tpded()
            pairs.append({"with": on[0], "without": off[0], "slower_percent": 100 * (off[0] - on[0]) / off[0],
                          "busy_with": on[1], "busy_without": off[1],
                          "busy_percent": 100 * (off[1] - on[1]) * window / (off[0] * options.interval)})
            print(f"  pair {number + 1:2} {'with, without' if with_first else 'without, with'}: {on[0]:.3f} and {off[0]:.3f} steps a second with "
                  f"tpded and without: {pairs[-1]['slower_percent']:+.2f} %; in the first {window:g} s {on[1]:.3f} and {off[1]:.3f}: "
                  f"{pairs[-1]['busy_percent']:+.2f} % of all", flush=True)

    mean, half = mean_and_half([pair["slower_percent"] for pair in pairs])
    busy_mean, busy_half = mean_and_half([pair["busy_percent"] for pair in pairs])
    per_gb = bench.cpu / (bench.bytes / 1e9)
    is_full = options.pairs >= PAIRS and options.interval >= INTERVAL
    held = mean + half < LIMIT_PERCENT
    print(f"CPU seconds of tpded: {bench.cpu:.1f} for {bench.bytes / 1e9:.2f} GB of checkpoints, {per_gb:.2f} a GB; "
          f"{bench.cpu_busy:.1f} of them in the first {window:g} s after a save")
    verdict = ("holds" if held else "DOES NOT HOLD") if is_full else "a trial, too short to say"
    print(f"training with tpded: {mean:+.2f} % slower, 95 % interval {mean - half:+.2f} to {mean + half:+.2f} %"
          f" (under {LIMIT_PERCENT:g} %: {verdict})")
    print(f"by the first {window:g} s after a save alone: {busy_mean:+.2f} % of all, 95 % interval {busy_mean - busy_half:+.2f} to "
          f"{busy_mean + busy_half:+.2f} %")
    if options.results:
        options.results.write_text(json.dumps({
            "cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__, "interval": options.interval, "pairs": pairs,
            "slower_percent": mean, "interval_percent": [mean - half, mean + half], "busy_seconds": window, "busy_percent": busy_mean,
            "busy_interval_percent": [busy_mean - busy_half, busy_mean + busy_half], "busy_cpu_seconds": bench.cpu_busy,
            "cpu_seconds": bench.cpu, "bytes": bench.bytes,
            "cpu_seconds_per_gb": per_gb}, indent=1) + "\n", encoding="utf-8")
    return 0 if held or not is_full else 1


if __name__ == "__main__":
    sys.exit(main())
