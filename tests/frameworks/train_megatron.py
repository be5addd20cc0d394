"""Megatron, two ranks of tensor parallelism, gloo: iter_0000020/ and latest_checkpointed_iteration.txt beside it.

    train_megatron.py ROOT RUN...    megatron-core: torch_dist, by megatron-core itself; megatron-legacy: a torch file a rank;
                                     nemo: torch_dist below NAME/weights, held back by NAME-unfinished

megatron-core takes the current GPU for granted; the shims below put the CPU there. Megatron-LM and NeMo are no packages that install
without a GPU's libraries, so what they do around it is done here, in their order:
- Megatron-LM, megatron/training/checkpointing.py, save_checkpoint: torch_dist saves into iter_%07d/; the format "torch" has each
  rank write iter_%07d/mp_rank_%02d/model_optim_rng.pt; after a barrier rank 0 writes the iteration into the tracker.
- NeMo, nemo/lightning/pytorch/callbacks/model_checkpoint.py, _save_checkpoint and _remove_checkpoint: NAME-unfinished is touched,
  weights/ and context/ are written, it is removed; and the same around the deletion.
"""
import os
import pathlib
import shutil
import sys
import time

import torch
import torch.distributed as dist

import small
from recorder import Recorder

SAVES, EVERY, PAUSE = 4, 20, 1.4  # one save in so many iterations
SLOW_RANK = 2.5  # seconds that rank 1 of the legacy format comes later; longer than settle=
WIDTH, VOCABULARY, LENGTH = 128, 1024, 32


def put_the_cpu_in_place_of_the_gpu():
    import contextlib

    torch.cuda.current_device = lambda: "cpu"
    torch.cuda.device_count = lambda: 1
    for name in ("synchronize", "set_device", "reset_peak_memory_stats"):
        setattr(torch.cuda, name, lambda *_, **__: None)
    tensor = torch.tensor

    def tensor_on_cpu(*args, **arguments):
        if arguments.get("device") == "cuda":
            arguments["device"] = "cpu"
        return tensor(*args, **arguments)

    torch.tensor = tensor_on_cpu
    from megatron.core.tensor_parallel import random
    random.CudaRNGStatesTracker.fork = lambda *_, **__: contextlib.nullcontext()


class Run:
    def __init__(self):
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
        from megatron.core.models.gpt.gpt_model import GPTModel
        from megatron.core.transformer.transformer_config import TransformerConfig
        torch.manual_seed(0)
        config = TransformerConfig(
            num_layers=2, hidden_size=WIDTH, num_attention_heads=4, hidden_dropout=0.0, attention_dropout=0.0, add_bias_linear=False,
            use_cpu_initialization=True, pipeline_dtype=torch.float32, gradient_accumulation_fusion=False, bias_dropout_fusion=False,
            bias_activation_fusion=False, masked_softmax_fusion=False, persist_layer_norm=False)
        self.model = GPTModel(config, get_gpt_layer_local_spec(normalization="LayerNorm"), vocab_size=VOCABULARY,
                              max_sequence_length=LENGTH)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3)
        self.mask = torch.ones(1, 1, LENGTH, LENGTH).tril() < 0.5

    def train(self, step):
        tokens, labels = small.batch(step)
        loss = self.model(tokens, torch.arange(LENGTH)[None].expand_as(tokens), self.mask, labels=labels).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def sharded_state(self, step):
        from megatron.core.dist_checkpointing.optimizer import (get_param_id_to_sharded_param_map,
                                                                optim_state_to_sharding_state)
        model, optimizer = self.model.sharded_state_dict(prefix=""), self.optimizer.state_dict()
        optim_state_to_sharding_state(optimizer, get_param_id_to_sharded_param_map(model, self.model.parameters()),
                                      exclude_keys=("step",))
        return {"model": model, "optimizer": optimizer, "iteration": step}

    def save_sharded(self, path, step):
        from megatron.core import dist_checkpointing
        if dist.get_rank() == 0:
            os.makedirs(path, exist_ok=True)
        dist.barrier()
        dist_checkpointing.save(self.sharded_state(step), path)


def save_core(run, watched, step, recorder):
    path = os.path.join(watched, f"iter_{step:07d}")
    run.save_sharded(path, step)
    dist.barrier()
    if recorder:
        pathlib.Path(watched, "latest_checkpointed_iteration.txt").write_text(str(step), encoding="ascii")
        recorder.complete(path, step, "metadata.json")


def save_legacy(run, watched, step, recorder):
    rank = dist.get_rank()
    path = os.path.join(watched, f"iter_{step:07d}")
    os.makedirs(os.path.join(path, f"mp_rank_{rank:02d}"))
    time.sleep(SLOW_RANK * rank)
    torch.save({"checkpoint_version": 3.0, "iteration": step, "model": run.model.state_dict_for_save_checkpoint(),
                "optimizer": run.optimizer.state_dict()}, os.path.join(path, f"mp_rank_{rank:02d}", "model_optim_rng.pt"))
    dist.barrier()
    if recorder:
        marker = pathlib.Path(watched, "latest_checkpointed_iteration.txt")
        marker.write_text(str(step), encoding="ascii")
        recorder.complete(path, step, os.path.join("..", marker.name))


def nemo_path(watched, step):
    return os.path.join(watched, f"gpt--reduced_train_loss={6 - step / 100:.4f}-step={step}-consumed_samples={4 * step}.0")


def save_nemo(run, watched, step, recorder):
    path, rank = nemo_path(watched, step), dist.get_rank()
    if rank == 0:
        pathlib.Path(path + "-unfinished").touch()
    dist.barrier()
    run.save_sharded(os.path.join(path, "weights"), step)
    time.sleep(SLOW_RANK)
    if rank == 0:
        context = pathlib.Path(path, "context")
        context.mkdir()
        (context / "model.yaml").write_text("_target_: GPTModel\n" + "# a comment\n" * 200, encoding="ascii")
        (context / "io.json").write_text("{}", encoding="ascii")
    dist.barrier()
    if not recorder:
        return
    os.unlink(path + "-unfinished")
    recorder.complete(path, step)
    old = nemo_path(watched, step - 2 * EVERY)
    if os.path.exists(old):  # slowly, as from a network file system
        recorder.ending(old)
        pathlib.Path(old + "-unfinished").touch()
        shutil.rmtree(os.path.join(old, "weights"))
        time.sleep(SLOW_RANK)
        shutil.rmtree(old)
        os.unlink(old + "-unfinished")


def main():
    torch.set_num_threads(1)
    put_the_cpu_in_place_of_the_gpu()
    from megatron.core import parallel_state
    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=2)
    for name in sys.argv[2:]:
        save = {"megatron-core": save_core, "megatron-legacy": save_legacy, "nemo": save_nemo}[name]
        recorder = Recorder(sys.argv[1], name) if dist.get_rank() == 0 else None
        run = Run()
        for step in range(EVERY, (SAVES + 1) * EVERY, EVERY):
            run.train(step)
            save(run, os.path.join(sys.argv[1], "watched", name), step, recorder)
            time.sleep(PAUSE)
        dist.barrier()
    time.sleep(1)
    small.leave()


if __name__ == "__main__":
    main()
