"""tpded and tpdectl as a user has them: a configuration, a process, commands."""
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import tempfile
import time


class Tpded:
    """A daemon with a store and watches of its own below `directory`; a context manager, which stops it."""

    def __init__(self, build, directory, watches, settle="1", settings=(), prefix=(), threads=2):
        self.build, self.directory = pathlib.Path(build), pathlib.Path(directory)
        self.store, self.log = self.directory / "store", self.directory / "tpded.log"
        self.config = self.directory / "tpded.conf"
        self.socket_directory = tempfile.TemporaryDirectory(prefix="tpded-")  # the path of a socket is short
        lines = ["[store]", f"path = {self.store}", "[daemon]", f"control_socket = {self.socket_directory.name}/sock",
                 f"threads = {threads}", *settings]
        for name, path in watches.items():
            # Many of these runs train the same model: each is judged alone, not by how deep the chain of another one is.
            lines += [f"[watch:{name}]", f"path = {path}", f"settle = {settle}", "base = none"]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.command = [*prefix, self.build / "tpded", "--verbose", "--config", self.config]
        self.process = None

    def __enter__(self):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command, stderr=log)
        deadline = time.monotonic() + 30
        while self.status()["daemon"] is None or self.status()["daemon"]["state"] == "starting":
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"tpded does not start:\n{self.log_text()[-2000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.socket_directory.cleanup()

    def tpdectl(self, *words):
        command = [self.build / "tpdectl", "--config", self.config, "--quiet", *words]
        return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self, *words):
        done = self.tpdectl("--json", *words)
        if done.returncode != 0:
            raise RuntimeError(f"tpdectl {' '.join(map(str, words))}: status {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def status(self):
        if not (self.store / "catalog.sqlite").exists():
            return {"daemon": None}
        return self.ask("status")

    def wait_idle(self, quiet=4, patience=180):
        """Nothing queued, nothing in work, and what is unfinished has stayed so for `quiet` seconds."""
        deadline, since, before = time.monotonic() + patience, time.monotonic(), None
        while time.monotonic() < deadline:
            status = self.status()["daemon"]
            if status is None:
                raise RuntimeError(f"tpded is gone:\n{self.log_text()[-2000:]}")
            now = (status["state"], status["queue"]["queued"], status["queue"]["running"], status["queue"]["done"],
                   sorted(entry["path"] for entry in status["unfinished"]))
            if now != before:
                before, since = now, time.monotonic()
            if now[:3] == ("idle", 0, 0) and time.monotonic() - since > quiet:
                return status
            time.sleep(0.2)
        raise RuntimeError(f"tpded is not idle after {patience} s: {status}")

    def listed(self):
        return self.ask("list")

    def events(self):
        """[(run or None, text)], oldest first."""
        with sqlite3.connect(f"file:{self.store}/catalog.sqlite?mode=ro", uri=True) as catalog:
            return catalog.execute("SELECT run, text FROM events ORDER BY number").fetchall()

    def log_text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def memory_kb(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(text.split("VmRSS:")[1].split()[0])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))
