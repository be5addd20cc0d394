"""torchtitan's own CheckpointManager, two ranks, gloo: checkpoint/step-N/, of which the newest two are kept.

    train_torchtitan.py ROOT RUN...    torchtitan: synchronous; torchtitan-async: in a thread

The rest of torchtitan wants a GPU: optimizer, schedule and train state are what its manager asks of them (Stateful). A thread of its own
deletes the old ones.
"""
import os
import sys
import time

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torchtitan.components.checkpointer.dcp import CheckpointManager

import small
from recorder import Recorder

STEPS, EVERY, PAUSE = 12, 2, 0.7


class Optimizers:
    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer

    def state_dict(self):
        return get_optimizer_state_dict(self.model, self.optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))

    def load_state_dict(self, _):
        pass


class Counter:
    """A schedule, and a train state."""

    step = 0

    def state_dict(self):
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, _):
        pass


def train(root, run):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model, rank = small.fresh_model(), dist.get_rank()
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer, schedule, state = torch.optim.AdamW(model.parameters(), 1e-3), Counter(), Counter()
    config = CheckpointManager.Config(enable=True, folder="checkpoint", interval=EVERY, keep_latest_k=2, last_save_model_only=False,
                                      async_mode="async" if run == "torchtitan-async" else "disabled")
    folder = os.path.join(root, "watched", run)
    manager = CheckpointManager(config, dataloader=None, model_parts=[model], optimizers=Optimizers(model, optimizer),
                                lr_schedulers=schedule, states={"train_state": state}, sd_adapter=None, base_folder=folder)
    recorder = Recorder(root, run) if rank == 0 else None
    for step in range(1, STEPS + 1):
        schedule.step = state.step = step
        manager.maybe_wait_for_staging()
        small.train_step(model, optimizer, step, rank)
        manager.save(step, last_step=step == STEPS)
        if step % EVERY == 0:
            if manager.save_future:
                manager.save_future.result()
            dist.barrier()
            if recorder:
                recorder.complete(os.path.join(folder, "checkpoint", f"step-{step}"), step, ".metadata")
        time.sleep(PAUSE)
    manager.close()
    dist.barrier()


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("cpu:gloo")
    for name in sys.argv[2:]:
        train(sys.argv[1], name)
    small.leave()
