"""Lightning: ModelCheckpoint keeps the best two by loss, and last.ckpt.

    train_lightning.py ROOT lightning              trains
    train_lightning.py ROOT --resume CHECKPOINT    goes on from there, and prints the losses of six steps

The score that decides is made up: some checkpoints are among the best for long, some for a short time, one never. last.ckpt is written
again and again; its step is in it only.
"""
import os
import sys
import time

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import small
from recorder import Recorder

EVERY = 2  # steps
SCORES = [9.0, 8.0, 7.0, 9.5, 3.0, 5.0, 4.0, 2.0]  # one a checkpoint


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.losses = small.fresh_model(), []

    def training_step(self, tokens, index):
        loss = small.loss_of(self.model, *tokens)
        self.losses.append(loss.item().hex())
        self.log("score", SCORES[min(self.trainer.global_step // EVERY, len(SCORES) - 1)])
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


class Recorded(ModelCheckpoint):
    def __init__(self, recorder, **arguments):
        super().__init__(**arguments)
        self.recorder = recorder

    def _save_checkpoint(self, trainer, filepath):
        super()._save_checkpoint(trainer, filepath)
        last = os.path.basename(filepath) == "last.ckpt"
        self.recorder.complete(filepath, trainer.global_step, kind="lightning last" if last else None, keep=not last)


class Pace(lightning.Callback):
    def on_train_batch_end(self, *arguments):
        time.sleep(1.3)


def fit(steps, callbacks, root, checkpoint=None):
    data = [tuple(half[0] for half in small.batch(step)) for step in range(64)]
    module = Module()
    lightning.Trainer(accelerator="cpu", devices=1, max_steps=steps, callbacks=callbacks, logger=False,
                      enable_checkpointing=bool(callbacks), enable_progress_bar=False, enable_model_summary=False,
                      default_root_dir=root).fit(module, torch.utils.data.DataLoader(data, batch_size=2), ckpt_path=checkpoint)
    return module.losses


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2] == "--resume":
        done = torch.load(sys.argv[3], weights_only=True)["global_step"]
        print("losses", *fit(done + 6, [], sys.argv[1], sys.argv[3]))
    else:
        saver = Recorded(Recorder(sys.argv[1], "lightning"), dirpath=os.path.join(sys.argv[1], "watched", "lightning"),
                         filename="{step}", monitor="score", save_top_k=2, save_last=True, every_n_train_steps=EVERY)
        fit(EVERY * len(SCORES), [saver, Pace()], sys.argv[1])
