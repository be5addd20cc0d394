"""Lightning's ModelCheckpoint, in several ways.

    train_lightning.py ROOT RUN...                 trains
    train_lightning.py ROOT --resume CHECKPOINT    goes on from there, and prints the losses of six steps

lightning          keeps the best two by score, and last.ckpt, which is written again and again; its step is in it only
lightning-link     the same, last.ckpt is a link to the newest
lightning-async    AsyncCheckpointIO, one kept: the old one is deleted before the new one is there
lightning-copied   TMPDIR is another file system: last.ckpt and the others are not renamed but truncated and copied in place
lightning-sharded  two ranks, ModelParallelStrategy: a directory of DCP and meta.pt

The score that decides is made up: some checkpoints are among the best for long, some for a short time, one never.
"""
import os
import shutil
import sys
import tempfile
import time

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

import small
from recorder import Recorder

EVERY = 2  # steps
SCORES = [9.0, 8.0, 7.0, 9.5, 3.0, 5.0, 4.0, 2.0]  # one a checkpoint
SAVES = {"lightning": len(SCORES)}  # the others: 4


class Module(lightning.LightningModule):
    def __init__(self, sharded=False):
        super().__init__()
        self.model, self.losses, self.sharded = small.fresh_model(), [], sharded

    def configure_model(self):
        if self.sharded:
            fully_shard(self.model, mesh=self.device_mesh["data_parallel"])

    def training_step(self, tokens, index):
        loss = small.loss_of(self.model, *tokens)
        self.losses.append(loss.item().hex())
        self.log("score", SCORES[min(self.trainer.global_step // EVERY, len(SCORES) - 1)])
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


class Recorded(ModelCheckpoint):
    def __init__(self, recorder, run, **arguments):
        super().__init__(every_n_train_steps=EVERY, filename="{step}", **arguments)
        self.recorder, self.run = recorder, run

    def _save_checkpoint(self, trainer, filepath):
        super()._save_checkpoint(trainer, filepath)
        if dist.is_initialized():
            dist.barrier()
        if self.recorder:
            last = os.path.basename(filepath) == "last.ckpt"
            self.recorder.complete(filepath, trainer.global_step, "meta.pt" if os.path.isdir(filepath) else None,
                                   kind=f"{self.run} last" if last else None, keep=not last)


class RecordedIO(TorchCheckpointIO):
    """Below AsyncCheckpointIO: knows when a file is there."""

    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        super().save_checkpoint(checkpoint, path, storage_options)
        self.recorder.complete(path, checkpoint["global_step"])


class Pace(lightning.Callback):
    def on_train_batch_end(self, *arguments):
        time.sleep(1.3)


def fit(steps, callbacks, root, checkpoint=None, sharded=False, **arguments):
    data = [tuple(half[0] for half in small.batch(step)) for step in range(64)]
    module = Module(sharded)
    lightning.Trainer(**{"accelerator": "cpu", "devices": 1, **arguments}, max_steps=steps, callbacks=callbacks, logger=False,
                      enable_checkpointing=bool(callbacks), enable_progress_bar=False, enable_model_summary=False,
                      default_root_dir=root).fit(module, torch.utils.data.DataLoader(data, batch_size=2), ckpt_path=checkpoint)
    return module.losses


def train(root, run):
    recorder = Recorder(root, run) if os.environ.get("RANK", "0") == "0" else None
    keeping = {"dirpath": os.path.join(root, "watched", run), "monitor": "score", "save_top_k": 2, "save_last": True}
    arguments, saver_recorder = {}, recorder
    if run == "lightning-link":
        keeping["save_last"] = "link"
    elif run == "lightning-async":
        keeping.update(monitor=None, save_top_k=1, save_last=False)
        arguments["plugins"] = [AsyncCheckpointIO(RecordedIO(recorder))]
        saver_recorder = None
    elif run == "lightning-sharded":
        keeping.update(monitor=None, save_top_k=1, save_last=False)
        arguments.update(devices=2, sharded=True, strategy=ModelParallelStrategy(
            data_parallel_size=2, tensor_parallel_size=1, process_group_backend="gloo"))
    fit(EVERY * SAVES.get(run, 4), [Recorded(saver_recorder, run, **keeping), Pace()], root, **arguments)


def train_copied(root, run):
    elsewhere = tempfile.mkdtemp(prefix="tpded-", dir="/dev/shm")
    try:
        assert os.stat(elsewhere).st_dev != os.stat(root).st_dev, "/dev/shm is no file system of its own"
        tempfile.tempdir = elsewhere
        train(root, run)
    finally:
        tempfile.tempdir = None
        shutil.rmtree(elsewhere)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2] == "--resume":
        done = torch.load(sys.argv[3], weights_only=True)["global_step"]
        print("losses", *fit(done + 6, [], sys.argv[1], sys.argv[3]))
    else:
        for name in sys.argv[2:]:
            (train_copied if name == "lightning-copied" else train)(sys.argv[1], name)
    small.leave()
