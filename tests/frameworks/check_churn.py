"""A storm: 100,000 files created, written again and removed in a watched tree in about a minute, a checkpoint among them.

By their names each of the files could be a checkpoint of its own. Two storms, on one daemon: a leak would be twice as large. In the midst
of each the daemon stands still for a moment, as on a node without a free CPU, so that inotify's queue overflows for certain.
"""
import os
import pathlib
import shutil
import signal
import time

from daemon import Tpded
from recorder import describe

FILES, DIRECTORIES = 100_000, 40
FILES_OF_CHECKPOINT = 5
STILL_AT = FILES // 2
STILL_FILES = 20_000  # each of them is several events, and the kernel's queue has room for 16,384
# After both storms, over what it was before: the allocator keeps some megabytes, now more, now less; a leak of 80 bytes a file is more.
GROWTH_KB = 16384


def write_checkpoint(directory, step):
    """FILES_OF_CHECKPOINT, the marker last."""
    path = directory / f"checkpoint-{step}"
    path.mkdir()
    for name, size in (("config.json", 0), ("model.safetensors", 0), ("optimizer.pt", 400_000), ("rng_state.pth", 500)):
        (path / name).write_bytes(os.urandom(size))
    (path / "config.json").write_text("{}", encoding="ascii")
    header = b'{"w":{"dtype":"U8","shape":[200000],"data_offsets":[0,200000]}}'
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + os.urandom(200_000))
    (path / "trainer_state.json").write_text(f'{{"global_step": {step}}}', encoding="ascii")
    return path


def storm(tpded, watched, step):
    """Seconds that it took, and the checkpoint."""
    directories = [watched / f"cache-{step}" / str(i) for i in range(DIRECTORIES)]
    for directory in directories:
        directory.mkdir(parents=True)
    start, checkpoint = time.monotonic(), None
    for i in range(FILES):
        path = f"{directories[i % DIRECTORIES]}/shard-{i}.bin"
        for text in (b"first", b"again"):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(file, text)
            os.close(file)
        os.unlink(path)
        if i == STILL_AT:
            tpded.process.send_signal(signal.SIGSTOP)
            checkpoint = write_checkpoint(watched, step)
        elif i == STILL_AT + STILL_FILES:
            tpded.process.send_signal(signal.SIGCONT)
    seconds = time.monotonic() - start
    shutil.rmtree(watched / f"cache-{step}")
    return seconds, checkpoint


def check(build, root, say):
    shutil.rmtree(root, ignore_errors=True)
    watched, failures, memory, descriptors = root / "watched", [], [], []
    watched.mkdir(parents=True)
    with Tpded(build, root, {"churn": watched}, settings=["scan_interval = 1h"]) as tpded:
        memory.append(tpded.memory_kb())
        for step in (10, 20):
            seconds, checkpoint = storm(tpded, watched, step)
            try:
                tpded.wait_idle()
            except RuntimeError as error:
                failures.append(f"churn: {error}")
                break
            memory.append(tpded.memory_kb())
            descriptors.append(tpded.descriptors())
            done = tpded.tpdectl("restore", f"churn@{step}", "--to", root / f"restored-{step}")
            if done.returncode != 0 or describe(root / f"restored-{step}") != describe(checkpoint):
                failures.append(f"churn: the checkpoint among the files is not stored: {done.stderr.strip()}")
            say(f"churn: {FILES} files in {seconds:.0f} s, then {memory[-1]} kB resident, {descriptors[-1]} descriptors")
        extra = {item["name"] for item in tpded.listed()} - {"churn@10~1", "churn@20~1"}
        overflows = tpded.log_text().count("overflow")
    say(f"churn: {memory[0]} kB resident before; inotify's queue overflowed {overflows} times")
    if extra:
        failures.append(f"churn: stored, too: {sorted(extra)}")
    if tpded.process.returncode != 0:
        failures.append(f"churn: tpded ended with {tpded.process.returncode}")
    # The files of the two newest checkpoints stay open: after the first storm there is only one.
    if max(memory) - memory[0] > GROWTH_KB or max(descriptors, default=0) - min(descriptors, default=0) > FILES_OF_CHECKPOINT:
        failures.append(f"churn: memory {memory} kB, descriptors {descriptors}: the storms left something")
    if overflows == 0:
        failures.append("churn: inotify's queue did not overflow, or nobody said so")
    return failures
