"""What a training process notes of its own checkpoints, for the store to be compared with.

    recorder = Recorder(root, run)
    recorder.complete(path, step, marker="trainer_state.json")

ROOT/records/RUN.jsonl gets a line for each checkpoint as soon as it is complete, before training goes on and anything may delete it:
names, modes, sizes and SHA-256 of its files, and the time of the last change of any of them, or of its completion marker if that lies
elsewhere. Another line tells when its end begins. Python tells that itself, through an audit hook, before it removes, renames or opens for
writing; what C++ opens (torch.save with a path) is told by ending(). The run of what lies deeper than in the watched directory is
RUN/DIRECTORY, as tpded names it.
"""
import hashlib
import json
import os
import pathlib
import shutil
import sys
import threading
import time


def describe(path):
    """{name: [SHA-256, mode, size]} of a directory's files, or of one file."""
    path = pathlib.Path(path)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    found = {}
    for file in files:
        name = file.name if file == path else str(file.relative_to(path))
        found[name] = [hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mode & 0o7777, file.stat().st_size]
    return found


def newest_change(path):
    path = pathlib.Path(path)
    return max(file.stat().st_ctime_ns for file in ([path] if path.is_file() else path.rglob("*")))


class Recorder:
    def __init__(self, root, run):
        self.run, self.kept = run, pathlib.Path(root, "kept", run)
        self.watched = pathlib.Path(root, "watched", run)
        self.lock, self.live = threading.RLock(), set()
        self.log = open(pathlib.Path(root, "records", run + ".jsonl"), "a", buffering=1, encoding="utf-8")
        sys.addaudithook(self._audit)

    def complete(self, path, step, marker=None, kind=None, keep=False):
        """Of `kind` are those that the table counts in a line of their own. keep: a copy in ROOT/kept/RUN."""
        path = os.path.abspath(path)
        with self.lock:
            self.ending(path)
            completed = newest_change(path)
            if marker:
                completed = max(completed, os.stat(os.path.join(path, marker)).st_ctime_ns)
            below = os.path.relpath(os.path.dirname(path), self.watched)
            run = self.run if below == "." else f"{self.run}/{below}"
            self._write(event="complete", run=run, kind=kind or self.run, step=step, path=path, time=completed,
                        marked=marker is not None, files=describe(path))
            self.live.add(path)
            if keep:
                copy = shutil.copytree if os.path.isdir(path) else shutil.copy2
                self.kept.mkdir(parents=True, exist_ok=True)
                copy(path, self.kept / os.path.basename(path))

    def ending(self, path):
        """Something in it is about to be removed, or written again."""
        with self.lock:
            path = os.path.abspath(path)
            for live in [live for live in self.live if path == live or path.startswith(live + os.sep)]:
                self.live.remove(live)
                self._write(event="end", path=live, time=time.time_ns())

    def _write(self, **record):
        self.log.write(json.dumps(record) + "\n")

    def _audit(self, event, arguments):
        if event in ("os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"):
            paths = arguments[:1]
        elif event == "os.rename":
            paths = arguments[:2]
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            paths = arguments[:1]
        else:
            return
        for path in paths:
            if self.live and isinstance(path, (str, bytes, os.PathLike)):
                self.ending(os.fsdecode(path))


def read_records(root, run):
    """The checkpoints of a run; each with "end": when it went away, or None."""
    records, newest = [], {}
    path = pathlib.Path(root, "records", run + ".jsonl")
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        record = json.loads(line)
        if record["event"] == "end":
            newest[record["path"]]["end"] = record["time"]
        else:
            record["end"] = None
            records.append(record)
            newest[record["path"]] = record
    return records
