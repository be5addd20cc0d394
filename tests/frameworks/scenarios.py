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
    Scenario("hf-ranks", "train_hf.py", 2, "HF Trainer, two ranks, save_total_limit=1", 4),
    Scenario("lightning", "train_lightning.py", 1, "Lightning, the best two by score, and last.ckpt", 4),
    Scenario("torch-steps", "train_torch.py", 1, "torch.save, step_N.pt, some written again", 5),
    Scenario("torch-slow", "train_torch.py", 1, "torch.save, slowly, zip and legacy", 4),
    Scenario("dcp-sync", "train_dcp.py", 2, "DCP save, two ranks, the newest two kept", 4),
    Scenario("dcp-async", "train_dcp.py", 2, "DCP async_save, two ranks", 4),
    Scenario("deepspeed", "train_deepspeed.py", 2, "DeepSpeed ZeRO-1, two ranks", 4),
]


def programs(scenarios):
    """{(program, ranks): [runs]}: what to start, in order."""
    found = {}
    for scenario in scenarios:
        found.setdefault((scenario.program, scenario.ranks), []).append(scenario.run)
    return found
