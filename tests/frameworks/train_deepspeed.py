"""DeepSpeed, ZeRO-1 in bf16, two ranks, gloo: global_stepN/ and `latest` beside it.

    train_deepspeed.py ROOT deepspeed

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

STEPS, EVERY, PAUSE = 10, 2, 0.7

# Its shared-memory reduction is a C++ extension that it would compile now, for a minute; gloo does without. (As an attribute of
# deepspeed.comm, `torch` is PyTorch.)
sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None


def main():
    torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="gloo")
    model = small.fresh_model()
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config={
        "train_micro_batch_size_per_gpu": 4, "bf16": {"enabled": True}, "zero_optimization": {"stage": 1},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}})
    rank = dist.get_rank()
    recorder = Recorder(sys.argv[1], "deepspeed") if rank == 0 else None
    watched = os.path.join(sys.argv[1], "watched", "deepspeed")
    for step in range(1, STEPS + 1):
        engine.backward(small.loss_of(engine, *small.batch(step, rank)))
        engine.step()
        time.sleep(PAUSE)
        if step % EVERY == 0:
            engine.save_checkpoint(watched)
            dist.barrier()
            if recorder:
                path = os.path.join(watched, f"global_step{step}")
                recorder.complete(path, step, os.path.join("..", "latest"))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
