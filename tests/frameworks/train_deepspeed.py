"""DeepSpeed, ZeRO-1, 2 and 3 in bf16, two ranks, gloo: global_stepN/ and `latest` beside it.

    train_deepspeed.py ROOT RUN...                 deepspeed-zero1, -zero2, -zero3
    train_deepspeed.py ROOT --resume CHECKPOINT    (of ZeRO-3) goes on from there, and prints the losses of six steps

Both ranks write without a barrier, and rank 0 then writes `latest`. A checkpoint is complete when the last of all these is closed.
"""
import os
import sys
import time

import deepspeed
import torch
import torch.distributed as dist

import small
from recorder import Recorder

SAVES, EVERY, PAUSE = 4, 2, 0.6

# Its shared-memory reduction is a C++ extension that it would compile now, for a minute; gloo does without. (As an attribute of
# deepspeed.comm, `torch` is PyTorch.)
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None


def make_engine(stage):
    model = small.fresh_model()
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config={
        "train_micro_batch_size_per_gpu": 4, "bf16": {"enabled": True}, "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}})
    return engine


def train_step(engine, step):
    loss = small.loss_of(engine, *small.batch(step, dist.get_rank()))
    engine.backward(loss)
    engine.step()
    return loss.item()


def train(root, run):
    engine = make_engine(int(run[-1]))
    recorder = Recorder(root, run) if dist.get_rank() == 0 else None
    watched = os.path.join(root, "watched", run)
    for step in range(1, SAVES * EVERY + 1):
        train_step(engine, step)
        time.sleep(PAUSE)
        if step % EVERY == 0:
            engine.save_checkpoint(watched)
            dist.barrier()
            if recorder:
                recorder.complete(os.path.join(watched, f"global_step{step}"), step, os.path.join("..", "latest"), keep=True)
    dist.barrier()


def resume(checkpoint):
    engine = make_engine(3)
    directory, tag = os.path.split(checkpoint)
    engine.load_checkpoint(directory, tag=tag)
    losses = [train_step(engine, engine.global_steps + 1).hex() for _ in range(6)]
    if dist.get_rank() == 0:
        print("losses", *losses, flush=True)


def main():
    torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="gloo")
    if sys.argv[2] == "--resume":
        resume(sys.argv[3])
    else:
        for run in sys.argv[2:]:
            train(sys.argv[1], run)
    small.leave()


if __name__ == "__main__":
    main()
