"""depth.py --build DIR [--size BYTES] [--repeats N] RUN - what a restore costs at each depth of a chain; `make bench-large` calls it.

The checkpoints of RUN, tiled to so many bytes with AdamW's state beside the weights, and taken there and back again, become a chain of
depth 16. Some depths are restored several times, in rounds over all of them and into memory where that has the room, so that no disk
decides; the fastest of each counts, since whatever else this machine does only adds. A straight line through them says what one link more
costs (its slope: reading, checking and decoding one link of all tensors), and what does not depend on the depth (at depth 0: the
keyframe, SHA-256, writing).

The claim: a restore at depth 16 takes at most 20 times what one link takes.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

DEPTH = 16
RESTORED = (0, 1, 2, 4, 8, 12, 16)
TIMES = 20
ROOT = pathlib.Path(__file__).resolve().parents[2]


def line_through(points):
    """Least squares: (slope, value at 0)."""
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return slope, mean_y - slope * mean_x


def room_in(directory):
    return shutil.disk_usage(directory).free if os.path.isdir(directory) else 0


class Chain:
    def __init__(self, build, directory, depend):
        self.tpdectl, self.directory = build / "tpdectl", directory
        self.config = directory / "conf"
        self.config.write_text(f"[store]\npath = {directory}/store\nmax_depth = {DEPTH}\n[codec]\ndepend = {depend}\n", encoding="utf-8")

    def ask(self, *words):
        command = [self.tpdectl, "--config", self.config, "--quiet", "--json", *words]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"depth.py: tpdectl {' '.join(map(str, words))}: {done.stderr}")
        return json.loads(done.stdout)

    def fill(self, run, size):
        there = sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        if len(there) < 3:
            raise SystemExit(f"depth.py: '{run}' holds fewer than three checkpoints")
        there += there[-2:0:-1]
        for step in range(DEPTH + 1):
            tiled = self.directory / "new"
            subprocess.run([sys.executable, "-B", ROOT / "tests/large/tile.py", there[step % len(there)], tiled, str(size), "state"], check=True)
            self.ask("ingest", tiled, "--run", "large", "--step", step)
            shutil.rmtree(tiled)
        rows = {row["step"]: row for row in self.ask("list", "large")}
        if [rows[step]["depth"] for step in range(DEPTH + 1)] != list(range(DEPTH + 1)):
            raise SystemExit(f"depth.py: the chain has depths {[rows[step]['depth'] for step in sorted(rows)]}")
        return rows

    def restore(self, step, to):
        started = time.perf_counter()
        self.ask("restore", f"large@{step}", "--to", to)
        seconds = time.perf_counter() - started
        shutil.rmtree(to)
        return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--size", type=int, default=400_000_000)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--depend", default="optimizer")
    parser.add_argument("run", type=pathlib.Path)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="tpded-depth.", dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        chain = Chain(options.build, pathlib.Path(name), options.depend)
        rows = chain.fill(options.run, options.size)
        size = rows[DEPTH]["size"]
        out = pathlib.Path(tempfile.mkdtemp(prefix="tpded-depth.", dir="/dev/shm" if room_in("/dev/shm") > 3 * size else name))
        try:
            times = {depth: [] for depth in RESTORED}
            for _ in range(options.repeats):
                for depth in times:
                    times[depth].append(chain.restore(depth, out / "back"))
        finally:
            shutil.rmtree(out)
    fastest = {depth: min(seconds) for depth, seconds in times.items()}
    link, fixed = line_through(list(fastest.items()))
    print(f"{size} bytes, {os.cpu_count()} threads, depend = {options.depend}, into {out.parent}, fastest of {options.repeats} (and the median):")
    for depth, seconds in fastest.items():
        print(f"  depth {depth:2}  {rows[depth]['stored']:>12} bytes  {seconds:7.3f} s  {size / seconds / 1e9:5.2f} GB/s"
              f"  ({statistics.median(times[depth]):.3f} s)")
    print(f"  one link {link:.3f} s ({size / link / 1e9:.2f} GB/s), and {fixed:.3f} s whatever the depth")
    held = fastest[DEPTH] <= TIMES * link
    print(f"restore at depth {DEPTH}: {fastest[DEPTH] / link:.1f} times one link (at most {TIMES}: {'holds' if held else 'DOES NOT HOLD'})")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
