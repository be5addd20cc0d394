"""Who trains, as what: each scenario is a run with a watched directory of its own."""
from typing import NamedTuple


class Scenario(NamedTuple):
    run: str
    program: str
    ranks: int
    what: str
    minimum: int  # checkpoints that it writes, and that live long enough: fewer prove nothing


SCENARIOS = [
    Scenario("hf-fp32", "train_hf.py", 1, "HF Trainer, fp32", 4),
    Scenario("hf-bf16", "train_hf.py", 1, "HF Trainer, model in bf16, rotation", 4),
    Scenario("hf-sharded", "train_hf.py", 1, "HF Trainer, shards of 1 MB, rotation", 4),
    Scenario("hf-lora", "train_hf.py", 1, "HF Trainer with peft, rotation", 4),
    Scenario("hf-limit1", "train_hf.py", 1, "HF Trainer, save_total_limit=1, every 2 steps", 6),
    Scenario("hf-best", "train_hf.py", 1, "HF Trainer, load_best_model_at_end, save_total_limit=2", 4),
    Scenario("hf-ranks", "train_hf.py", 2, "HF Trainer, two ranks, save_total_limit=1", 4),
    Scenario("lightning", "train_lightning.py", 1, "Lightning, the best two by score, and last.ckpt", 4),
    Scenario("lightning-link", "train_lightning.py", 1, "Lightning, last.ckpt as a link", 3),
    Scenario("lightning-async", "train_lightning.py", 1, "Lightning's AsyncCheckpointIO, one kept", 3),
    Scenario("lightning-copied", "train_lightning.py", 1, "Lightning, TMPDIR on another file system", 3),
    Scenario("lightning-sharded", "train_lightning.py", 2, "Lightning's ModelParallelStrategy, two ranks", 3),
    Scenario("torch-steps", "train_torch.py", 1, "torch.save, step_N.pt, some written again", 5),
    Scenario("torch-slow", "train_torch.py", 1, "torch.save, slowly, zip and legacy", 4),
    Scenario("dcp-sync", "train_dcp.py", 2, "DCP save, two ranks, the newest two kept", 4),
    Scenario("dcp-async", "train_dcp.py", 2, "DCP async_save, two ranks", 4),
    Scenario("dcp-process", "train_dcp.py", 2, "DCP async_save from another process", 4),
    Scenario("dcp-hf", "train_dcp.py", 2, "DCP into consolidated safetensors", 4),
    Scenario("dcp-still", "train_reshard.py", 1, "DCP, over 2 ranks, stopped and gone on with", 8),
    Scenario("dcp-ranks", "train_reshard.py", 1, "DCP, over 2, 3, 1 and 2 ranks", 8),
    Scenario("dcp-dimension", "train_reshard.py", 1, "DCP, tensor parallel, FSDP and back", 6),
    Scenario("dcp-hf-ranks", "train_reshard.py", 1, "DCP into sharded safetensors, over 2, 3, 1 and 2 ranks", 8),
    Scenario("torchtitan", "train_torchtitan.py", 2, "torchtitan, the newest two kept", 4),
    Scenario("torchtitan-async", "train_torchtitan.py", 2, "torchtitan, asynchronous", 4),
    Scenario("megatron-core", "train_megatron.py", 2, "megatron-core torch_dist", 4),
    Scenario("megatron-legacy", "train_megatron.py", 2, "Megatron-LM, a file a rank, one of them late", 4),
    Scenario("nemo-files", "train_torch.py", 1, "NeMo's files under their marker", 8),
    Scenario("nemo", "train_megatron.py", 2, "NeMo's -unfinished, also around a slow deletion", 4),
    Scenario("gguf", "train_files.py", 1, "GGUF, some of it quantised", 4),
    Scenario("npz", "train_files.py", 1, "numpy's .npz", 4),
    Scenario("npy", "train_files.py", 1, "directories of numpy's .npy", 4),
    Scenario("onnx", "train_files.py", 1, "directories of ONNX with external data", 4),
    Scenario("torchao", "train_files.py", 1, "torchao's int8, torch.save", 4),
    Scenario("bitsandbytes", "train_files.py", 1, "bitsandbytes' nf4, safetensors", 4),
    Scenario("orbax", "train_jax.py", 1, "Orbax, asynchronous, the newest two kept", 4),
    Scenario("flax", "train_jax.py", 1, "Flax, the newest two kept", 4),
    Scenario("flax-msgpack", "train_jax.py", 1, "Flax's serialization", 4),
    Scenario("keras", "train_jax.py", 1, "Keras' ModelCheckpoint, .keras and .weights.h5", 8),
    Scenario("keras-backup", "train_jax.py", 1, "Keras' BackupAndRestore", 4),
    Scenario("keras-orbax", "train_jax.py", 1, "Keras' OrbaxCheckpoint", 4),
    Scenario("accelerate", "train_accelerate.py", 1, "Accelerate save_state, total_limit=1", 4),
    Scenario("accelerate-fsdp", "train_accelerate.py", 2, "Accelerate's FSDP layout, two ranks, slow between model and optimizer", 4),
    Scenario("deepspeed-zero1", "train_deepspeed.py", 2, "DeepSpeed ZeRO-1, two ranks, bf16", 4),
    Scenario("deepspeed-zero2", "train_deepspeed.py", 2, "DeepSpeed ZeRO-2, two ranks, bf16", 4),
    Scenario("deepspeed-zero3", "train_deepspeed.py", 2, "DeepSpeed ZeRO-3, two ranks, bf16", 4),
]

WITHOUT_TORCH = {"train_jax.py"}  # programs that have an environment of their own


def programs(scenarios):
    """{(program, ranks): [runs]}: what to start, in order."""
    found = {}
    for scenario in scenarios:
        found.setdefault((scenario.program, scenario.ranks), []).append(scenario.run)
    return found
