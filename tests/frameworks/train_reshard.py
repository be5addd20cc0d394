"""torch.distributed.checkpoint where the number of ranks changes, or the dimension that tensors are cut along.

    train_reshard.py ROOT RUN...    dcp-ranks: fully_shard over 2, then 3, then 1 and 2 ranks again; dcp-dimension: Linear layers cut
                                    by column and by row over 2 ranks (tensor parallel), then by fully_shard over 3, then by column and
                                    row again; dcp-hf-ranks: as dcp-ranks, the model into sharded safetensors

Each stage is a launch of its own that goes on from the last checkpoint, as training after another allocation does. A stage saves twice,
so that each change is followed by a step without one.
"""
import os
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import small
from recorder import Recorder

EVERY, SAVES, PAUSE = 2, 2, 1.2
STAGES = {  # (how, ranks), in order
    "dcp-ranks": (("fsdp", 2), ("fsdp", 3), ("fsdp", 1), ("fsdp", 2)),
    "dcp-dimension": (("tensor", 2), ("fsdp", 3), ("tensor", 2)),
    "dcp-hf-ranks": (("fsdp", 2), ("fsdp", 3), ("fsdp", 2)),
}


class Run:
    def __init__(self, how):
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        self.model, self.rank = small.fresh_model(), dist.get_rank()
        self.data_rank = 0 if how == "tensor" else self.rank  # a tensor-parallel rank has no data of its own
        if how == "tensor":
            for layer in self.model.layers:
                parallelize_module(layer, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
        else:
            for layer in self.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, foreach=False)

    def train(self, step):
        return small.train_step(self.model, self.optimizer, step, self.data_rank)

    def state(self):
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}


def save(run, name, path):
    if name == "dcp-hf-ranks":
        dcp.save(run.state()["model"], storage_writer=HuggingFaceStorageWriter(path, save_distributed=True))
    else:
        dcp.save(run.state(), checkpoint_id=path)


def load(run, name, path):
    state = run.state()
    if name == "dcp-hf-ranks":
        dcp.load(state["model"], storage_reader=HuggingFaceStorageReader(path))
    else:
        dcp.load(state, checkpoint_id=path)
    set_state_dict(run.model, run.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def stage(root, name, number):
    """One launch, in one of its ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("cpu:gloo")
    run = Run(STAGES[name][number][0])
    recorder = Recorder(root, name) if run.rank == 0 else None
    directory = os.path.join(root, "watched", name)
    first = number * SAVES * EVERY
    if number > 0:
        load(run, name, os.path.join(directory, f"step-{first}"))
    for step in range(first + 1, first + SAVES * EVERY + 1):
        run.train(step)
        if step % EVERY != 0:
            continue
        time.sleep(PAUSE)
        path = os.path.join(directory, f"step-{step}")
        save(run, name, path)
        dist.barrier()
        if recorder:
            recorder.complete(path, step, None if name == "dcp-hf-ranks" else ".metadata")
    small.leave()


def main():
    root, names = sys.argv[1], sys.argv[2:]
    if names[0] == "--stage":
        stage(root, names[1], int(names[2]))
    for name in names:
        for number, (_, ranks) in enumerate(STAGES[name]):
            subprocess.run([sys.executable, "-B", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), __file__,
                            root, "--stage", name, str(number)], check=True)


if __name__ == "__main__":
    main()
