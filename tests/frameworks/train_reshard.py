"""torch.distributed.checkpoint where the number of ranks changes, or the dimension that tensors are cut along.

    train_reshard.py ROOT RUN...    dcp-still: fully_shard over 2 ranks, which only stop and go on, to compare the others with; dcp-ranks: fully_shard over 2, then 3, then 1 and 2 ranks again; dcp-dimension: Linear layers cut
                                    by column and by row over 2 ranks (tensor parallel), then by fully_shard over 3, then by column and
                                    row again; dcp-hf-ranks: as dcp-ranks, the model into sharded safetensors

Each stage has processes of its own, forked since PyTorch takes seconds to import, and goes on from the last checkpoint, as training does
after another allocation. A stage saves twice, so that before and after each change there is a step without one. All else stays as it is,
for their costs to be comparable: all ranks have the same data, so that training does not depend on how many they are, and the first save
comes when AdamW's moments have settled.
"""
import datetime
import multiprocessing
import os
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
WARM_UP = 60  # steps: by then each token has been seen, and a moment is no longer mostly the last gradients
LEARNING_RATE = 1e-6  # of fine-tuning
STAGES = {  # (how, ranks), in order
    "dcp-still": (("fsdp", 2), ("fsdp", 2), ("fsdp", 2), ("fsdp", 2)),
    "dcp-ranks": (("fsdp", 2), ("fsdp", 3), ("fsdp", 1), ("fsdp", 2)),
    "dcp-dimension": (("tensor", 2), ("fsdp", 3), ("tensor", 2)),
    "dcp-hf-ranks": (("fsdp", 2), ("fsdp", 3), ("fsdp", 1), ("fsdp", 2)),
}


def steps_of(number):
    """What a stage saves; it begins EVERY steps before the first of these, or at 0."""
    return [WARM_UP + (number * SAVES + i) * EVERY for i in range(SAVES)]


class Run:
    def __init__(self, how):
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        self.model, self.rank = small.fresh_model(), dist.get_rank()
        if how == "tensor":
            for layer in self.model.layers:
                parallelize_module(layer, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
        else:
            for layer in self.model.layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(self.model, mesh=mesh)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LEARNING_RATE, foreach=False)

    def train(self, step):
        return small.train_step(self.model, self.optimizer, step)

    def state(self):
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}


def aside(root, name):
    """Where the optimizer of a run whose checkpoints are without it stays."""
    return os.path.join(root, "kept", name, "all")


def save(run, name, path):
    if name == "dcp-hf-ranks":
        dcp.save(run.state()["model"], storage_writer=HuggingFaceStorageWriter(path, save_distributed=True))
    else:
        dcp.save(run.state(), checkpoint_id=path)


def load(run, name, path, root):
    state = run.state()
    if name == "dcp-hf-ranks":
        dcp.load(state, checkpoint_id=aside(root, name))
        dcp.load(state["model"], storage_reader=HuggingFaceStorageReader(path))
    else:
        dcp.load(state, checkpoint_id=path)
    set_state_dict(run.model, run.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])


def stage(root, name, number, rank, ranks):
    """One of its ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("cpu:gloo", init_method=f"file://{root}/tmp/{name}-{number}", rank=rank, world_size=ranks,
                            timeout=datetime.timedelta(seconds=60))
    run = Run(STAGES[name][number][0])
    recorder = Recorder(root, name) if run.rank == 0 else None
    directory = os.path.join(root, "watched", name)
    first = 0
    if number > 0:
        first = steps_of(number - 1)[-1]
        load(run, name, os.path.join(directory, f"step-{first}"), root)
    for step in range(first + 1, steps_of(number)[-1] + 1):
        run.train(step)
        if step not in steps_of(number):
            continue
        time.sleep(PAUSE)
        path = os.path.join(directory, f"step-{step}")
        save(run, name, path)
        dist.barrier()
        if recorder:
            recorder.complete(path, step, None if name == "dcp-hf-ranks" else ".metadata")
    if name == "dcp-hf-ranks":
        dcp.save(run.state(), checkpoint_id=aside(root, name))
    small.leave()


def main():
    root, context = sys.argv[1], multiprocessing.get_context("fork")
    for name in sys.argv[2:]:
        for number, (_, ranks) in enumerate(STAGES[name]):
            processes = [context.Process(target=stage, args=(root, name, number, rank, ranks), daemon=True) for rank in range(ranks)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            if any(process.exitcode != 0 for process in processes):
                sys.exit(f"{name}: stage {number}: ranks end with {[process.exitcode for process in processes]}")


if __name__ == "__main__":
    main()
