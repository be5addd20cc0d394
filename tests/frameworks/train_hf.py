"""The Trainer of transformers, in several ways.

    train_hf.py ROOT RUN...                  trains; under torch.distributed.run with two ranks
    train_hf.py ROOT --resume CHECKPOINT     goes on from there, and prints the losses of six steps

In transformers 5 the Trainer knows no size of shards; save_pretrained does, so it is told there.
"""
import functools
import json
import os
import sys
import time

import torch
import torch.distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

import small
from recorder import Recorder

# steps, save_total_limit, seconds that a step takes at least (the last one goes on)
PLANS = {
    "hf-fp32": (8, None, [0.3]),
    "hf-bf16": (8, 2, [0.4]),
    "hf-sharded": (8, 2, [0.4]),
    "hf-lora": (8, 2, [0.4]),
    # Lives of a bit more than a second each, so that every one counts; then a sprint, in which most are too short to count.
    "hf-limit1": (24, 1, [0.55] * 14 + [0.3] * 4 + [0.0]),
    "hf-best": (12, 2, [0.6]),
    "hf-ranks": (8, 1, [1.2]),
}
EVAL_LOSSES = [5.0, 4.0, 6.0, 6.0, 3.0, 6.0]  # made up, of hf-best: the second one stays the best for long


class Losses(Trainer):
    def compute_loss(self, *args, **kwargs):
        result = super().compute_loss(*args, **kwargs)
        self.losses = [*getattr(self, "losses", []), (result[0] if isinstance(result, tuple) else result).item().hex()]
        return result

    def evaluate(self, *args, **kwargs):
        return {**super().evaluate(*args, **kwargs), "eval_loss": EVAL_LOSSES[self.state.global_step // 2 - 1]}


class Notes(TrainerCallback):
    def __init__(self, run, recorder):
        self.recorder, self.run, self.paces = recorder, run, PLANS[run][2]

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(self.paces[min(state.global_step, len(self.paces)) - 1])

    def on_save(self, args, state, control, **kwargs):
        path = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
        if args.world_size > 1:
            dist.barrier()  # the other rank's random state comes when it comes; then it is complete
        if self.recorder:
            self.recorder.complete(path, state.global_step, "trainer_state.json", keep=self.run == "hf-limit1")


def make_model(run):
    set_seed(1)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=small.VOCABULARY, hidden_size=128, intermediate_size=352, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=128, attention_dropout=0.1, tie_word_embeddings=False))
    if run == "hf-bf16":
        model = model.to(torch.bfloat16)
    if run == "hf-sharded":
        model.save_pretrained = functools.partial(model.save_pretrained, max_shard_size="1MB")
    if run == "hf-lora":
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    return model


def make_trainer(run, output, steps, callbacks=(), **more):
    data = [{"input_ids": tokens[0], "labels": tokens[0]} for tokens, _ in map(small.batch, range(200))]
    return Losses(make_model(run), TrainingArguments(
        output, max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-3, weight_decay=0.1, warmup_steps=2,
        use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=1, **more),
        train_dataset=data, eval_dataset=data[:4], callbacks=[*callbacks])


def train(root, run):
    first = os.environ.get("RANK", "0") == "0"
    steps, limit, _ = PLANS[run]
    # With a best one, which is kept besides the newest, losses and not age tell what is deleted.
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2} if run == "hf-best" else {}
    trainer = make_trainer(run, os.path.join(root, "watched", run), steps, save_steps=2, save_total_limit=limit,
                           callbacks=[Notes(run, Recorder(root, run) if first else None)], **best)
    trainer.train()


def resume(root, checkpoint):
    with open(os.path.join(checkpoint, "trainer_state.json"), encoding="utf-8") as state:
        steps = json.load(state)["global_step"] + 6
    trainer = make_trainer("hf-limit1", os.path.join(root, "resumed"), steps, save_strategy="no")
    trainer.train(resume_from_checkpoint=checkpoint)
    print("losses", *trainer.losses)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[2] == "--resume":
        resume(sys.argv[1], sys.argv[3])
    else:
        for name in sys.argv[2:]:
            train(sys.argv[1], name)
    small.leave()
