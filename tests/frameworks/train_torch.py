"""Loops of one's own around torch.save.

    train_torch.py ROOT RUN...

torch-steps   step_N.pt; step 3 is written again twice, the first time for good enough, and the process that wrote step 9 died
torch-slow    through a file whose disk is slow: a checkpoint is there, and grows, for seconds before it is whole. Half of them in
              the format from before torch 1.6, which has no end that would tell.
nemo-files    NeMo's single files: NAME-unfinished lies beside NAME.ckpt while it and NAME-EMA.ckpt are written, and while they are deleted
              (nemo/utils/callbacks/nemo_model_checkpoint.py, _save_checkpoint). In the middle of each there is a pause that is longer
              than settle=, and nothing in it would tell.
"""
import io
import os
import pathlib
import sys
import time

import torch

import small
from recorder import Recorder

PAUSE = float(os.environ["SLOW_PAUSE"])  # seconds between two writes of a slow disk; less than settle=, unless the test is to fail


class SlowFile:
    """A file for torch.save that sleeps now and then, some twelve times a checkpoint."""

    def __init__(self, path, writes):
        self.file, self.count, self.every = open(path, "wb"), 0, max(1, writes // 12)

    def write(self, data):
        self.count += 1
        self.file.write(data)
        if self.count % self.every == 0:
            self.file.flush()
            time.sleep(PAUSE)
        return len(data)

    def flush(self):
        self.file.flush()


class Counter:
    def __init__(self):
        self.count = 0

    def write(self, data):
        self.count += 1
        return len(data)

    def flush(self):
        pass


class Loop:
    def __init__(self, root, run):
        self.recorder, self.step = Recorder(root, run), 0
        self.directory = self.recorder.watched
        self.model = small.fresh_model()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3)

    def train(self):
        self.step += 1
        small.train_step(self.model, self.optimizer, self.step)

    def state(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def save(self, step=None):
        path = self.directory / f"step_{step or self.step}.pt"
        self.recorder.ending(path)
        torch.save(self.state(), path)
        self.recorder.complete(path, step or self.step)


def steps(loop):
    for _ in range(5):
        loop.train()
        loop.save()
        time.sleep(0.7)
    time.sleep(2.5)
    for pause in (3, 1, 0):  # long enough, too short, and for good
        loop.train()
        loop.save(step=3)
        time.sleep(pause)
    whole = (loop.directory / "step_3.pt").read_bytes()
    (loop.directory / "step_9.pt").write_bytes(whole[:len(whole) // 2])


def slowly(loop):
    for step in range(4):
        loop.train()
        arguments = {"_use_new_zipfile_serialization": step % 2 == 0}
        state = loop.model.state_dict()
        counter = Counter()
        torch.save(state, counter, **arguments)
        path = loop.directory / f"model-step{loop.step}.pt"
        slow = SlowFile(path, counter.count)
        torch.save(state, slow, **arguments)
        slow.file.close()
        loop.recorder.complete(path, loop.step)


def nemo(loop):
    for save in range(4):
        loop.train()
        name = f"gpt--loss={9 - save:.2f}-step={loop.step}-consumed_samples={4 * loop.step}.0"
        unfinished = loop.directory / (name + "-unfinished")
        unfinished.touch()
        paths = [loop.directory / (name + ending) for ending in (".ckpt", "-EMA.ckpt")]
        for i, path in enumerate(paths):
            memory = io.BytesIO()
            torch.save({**loop.state(), "ema": i}, memory, _use_new_zipfile_serialization=False)
            whole = memory.getvalue()
            with open(path, "wb") as file:
                file.write(whole[:len(whole) // 2])
                file.flush()
                time.sleep(1.5)
                file.write(whole[len(whole) // 2:])
        unfinished.unlink()
        for path in paths:
            loop.recorder.complete(path, loop.step)
        time.sleep(2.5)
        if save < 2:
            unfinished.touch()
            for path in paths:
                path.unlink()
            unfinished.unlink()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        {"torch-steps": steps, "torch-slow": slowly, "nemo-files": nemo}[name](Loop(sys.argv[1], name))
