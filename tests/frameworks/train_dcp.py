"""torch.distributed.checkpoint with sharded parameters, two ranks, gloo.

    train_dcp.py ROOT RUN...                 dcp-sync: dcp.save, of which the newest two are kept; dcp-async: dcp.async_save;
                                             dcp-process: the same, from another process; dcp-hf: consolidated safetensors
    train_dcp.py ROOT --resume CHECKPOINT    goes on from there, and prints the losses of six steps
"""
import os
import shutil
import sys
import threading
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import small
from recorder import Recorder

STEPS, EVERY, PAUSE = 12, 2, 0.7


class Run:
    def __init__(self):
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        self.model, self.rank = small.fresh_model(), dist.get_rank()
        for layer in self.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3)

    def state(self, step):
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": step}

    def train(self, step):
        return small.train_step(self.model, self.optimizer, step, self.rank)


def save_sync(run, path, step):
    dcp.save(run.state(step), checkpoint_id=path)


def save_as_hf(run, path, _):
    """What torchtitan's last_save_in_hf does, too: shards first, then one file made of them."""
    dcp.save(run.state(0)["model"], storage_writer=HuggingFaceStorageWriter(path, save_distributed=True, enable_consolidation=True))


def train(root, name, save, marker):
    run = Run()
    recorder = Recorder(root, name) if run.rank == 0 else None
    watched = os.path.join(root, "watched", name)
    for step in range(1, STEPS + 1):
        run.train(step)
        time.sleep(PAUSE)
        if step % EVERY != 0:
            continue
        path = os.path.join(watched, f"step-{step}")
        save(run, path, step)
        dist.barrier()
        if recorder:
            recorder.complete(path, step, marker, keep=name == "dcp-sync")
            shutil.rmtree(os.path.join(watched, f"step-{step - 2 * EVERY}"), ignore_errors=True)
    dist.barrier()


def train_async(root, name, group, **arguments):
    run, pending = Run(), None
    recorder = Recorder(root, name) if run.rank == 0 else None
    for step in range(1, STEPS + 1):
        run.train(step)
        time.sleep(PAUSE)
        if step % EVERY != 0:
            continue
        path = os.path.join(root, "watched", name, f"step-{step}")
        if pending:
            pending[0].result()
            pending[1].wait()
        future, noted = dcp.async_save(run.state(step), checkpoint_id=path, process_group=group, **arguments), threading.Event()

        def note(done, path=path, step=step, noted=noted):
            done.result()
            if recorder:
                recorder.complete(path, step, ".metadata")
            noted.set()

        future.add_done_callback(note)
        pending = future, noted
    pending[0].result()
    pending[1].wait()
    dist.barrier()


def resume(checkpoint):
    run = Run()
    state = run.state(0)
    dcp.load(state, checkpoint_id=checkpoint)
    set_state_dict(run.model, run.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    losses = [run.train(state["step"] + 1 + i).hex() for i in range(6)]
    if run.rank == 0:
        print("losses", *losses, flush=True)
    dist.barrier()


def main():
    torch.set_num_threads(1)
    dist.init_process_group("cpu:gloo")
    if sys.argv[2] == "--resume":
        resume(sys.argv[3])
    else:
        group = dist.new_group(backend="gloo")  # async_save needs one of its own
        for name in sys.argv[2:]:
            if name == "dcp-sync":
                train(sys.argv[1], name, save_sync, ".metadata")
            elif name == "dcp-hf":
                train(sys.argv[1], name, save_as_hf, "model.safetensors.index.json")
            elif name == "dcp-async":
                train_async(sys.argv[1], name, group)
            else:
                os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # the launcher's store is not for that process
                train_async(sys.argv[1], name, group, async_checkpointer_type=AsyncCheckpointerType.PROCESS)
    small.leave()


if __name__ == "__main__":
    main()
