"""Accelerate's save_state: checkpoints/checkpoint_N/, without a marker; N counts saves, not steps.

    train_accelerate.py ROOT RUN...                 accelerate: total_limit=1, so the old one goes before the new one comes;
                                                    accelerate-fsdp: two ranks, sharded
    train_accelerate.py ROOT --resume CHECKPOINT    goes on from there, and prints the losses of six steps

On a CPU Accelerate's own FSDP switch runs as DDP without a word. So the model is sharded by fully_shard here, and the directory is filled
in the order of Accelerator.save_state (accelerate/accelerator.py) by the functions that it calls: save_fsdp_model, save_fsdp_optimizer and
save_accelerator_state. Between the first two, gathering a large optimizer takes its time; here that is longer than settle=.
"""
import os
import shutil
import sys
import time

import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.checkpointing import save_accelerator_state
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, fsdp_utils
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import small
from recorder import Recorder

SAVES, EVERY = 5, 2  # steps
PAUSE = 1.5  # seconds a step: a checkpoint lives for two of them
GATHERING = 2.5  # seconds between the model and the optimizer


def prepared(**arguments):
    accelerator = Accelerator(cpu=True, **arguments)
    model = small.fresh_model()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 1e-3))
    return accelerator, model, optimizer


def train_step(accelerator, model, optimizer, step):
    loss = small.loss_of(model, *small.batch(step))
    accelerator.backward(loss)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def plain(root):
    recorder = Recorder(root, "accelerate")
    accelerator, model, optimizer = prepared(project_config=ProjectConfiguration(
        str(recorder.watched), automatic_checkpoint_naming=True, total_limit=1))
    for step in range(SAVES * EVERY):
        train_step(accelerator, model, optimizer, step)
        time.sleep(PAUSE)
        if step % EVERY == EVERY - 1:
            recorder.complete(accelerator.save_state(), step // EVERY, keep=True)
    time.sleep(PAUSE)


def sharded(root):
    accelerator = Accelerator(cpu=True)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT", cpu_ram_efficient_loading=False)
    accelerator.state.fsdp_plugin = plugin
    AcceleratorState._shared_state["distributed_type"] = "FSDP"
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = small.fresh_model()
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    recorder = Recorder(root, "accelerate-fsdp") if dist.get_rank() == 0 else None
    for save in range(4):
        for step in range(EVERY):
            small.train_step(model, optimizer, EVERY * save + step, dist.get_rank())
        path = os.path.join(root, "watched", "accelerate-fsdp", f"checkpoint_{save}")
        os.makedirs(path, exist_ok=True)
        fsdp_utils.save_fsdp_model(plugin, accelerator, model, path, 0)
        time.sleep(GATHERING)
        fsdp_utils.save_fsdp_optimizer(plugin, accelerator, optimizer, model, path, 0)
        save_accelerator_state(path, [], [], [], [], dist.get_rank(), 0)
        dist.barrier()
        if recorder:
            recorder.complete(path, save)
            shutil.rmtree(os.path.join(os.path.dirname(path), f"checkpoint_{save - 2}"), ignore_errors=True)
    dist.barrier()


def resume(checkpoint):
    accelerator, model, optimizer = prepared()
    accelerator.load_state(checkpoint)
    first = EVERY * (int(checkpoint.rsplit("_", 1)[1]) + 1)
    print("losses", *(train_step(accelerator, model, optimizer, first + i).hex() for i in range(6)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2] == "--resume":
        resume(sys.argv[3])
    else:
        for name in sys.argv[2:]:
            {"accelerate": plain, "accelerate-fsdp": sharded}[name](sys.argv[1])
    small.leave()
