#!/usr/bin/env python3
"""Make real training checkpoints: train small language models on real text and let the
frameworks' own code save them. Nothing in the output is synthetic.

    python3 make_checkpoints.py SCENARIO --out DIR [--size tiny|small|medium] [--steps N] [--every N]

This is where tools/demo/run comes from, six checkpoints of AdamW training saved by the Hugging Face Trainer:

    python3 make_checkpoints.py pretrain --out run --size tiny

with torch 2.13.0 and transformers 5. `make demo` and the tests replay that run; neither needs Python.

scenario   what it trains                                         what it writes
pretrain   Llama-style model from scratch, AdamW, fp32 + autocast HF Trainer directories, fp32, optimizer.pt
finetune   the pretrain result on other text, lr 2e-5             HF Trainer directories, fp32, optimizer.pt
bf16       the same fine-tune, weights and AdamW state in bf16    HF Trainer directories, bf16
lora       LoRA adapters (peft) on the pretrain result            HF Trainer directories, adapter_model.safetensors
master     bf16 model with an fp32 master copy and fp32 moments   one torch.save file a step (mixed-precision layout)
lightning  a Lightning module                                     *.ckpt written by ModelCheckpoint
dcp        torch.distributed.checkpoint, one process              step-N/ directories: .metadata + __0_0.distcp

Needs, in a virtual environment:  pip install torch==2.13.0 "transformers<6" accelerate tokenizers safetensors peft lightning
Sizes: tiny = 60 k parameters (for fixtures), small = 0.9 M (seconds), medium = 8.4 M parameters (minutes; about 0.3 s a step on two cores).
The text is the Python standard library's source, read from this machine: pretrain uses one half of it, the fine-tunes the other.
"""
import argparse, glob, os, sysconfig

SIZES = {  # hidden, ffn, layers, heads, vocab
    "tiny": (32, 96, 2, 2, 512),
    "small": (96, 256, 4, 4, 2400),
    "medium": (256, 688, 6, 8, 7200),
}


def corpus():
    """Two disjoint texts: library modules for pre-training, the rest for fine-tuning."""
    root = sysconfig.get_paths()["stdlib"]
    files = sorted(f for f in glob.glob(root + "/**/*.py", recursive=True) if "site-packages" not in f and "dist-packages" not in f)
    def read(fs):
        return "".join(open(f, encoding="utf-8", errors="replace").read() for f in fs)[:6_000_000]
    return read(files[0::2]), read(files[1::2])


def tokens(text, vocab, cache):
    import numpy as np
    from tokenizers import ByteLevelBPETokenizer
    os.makedirs(cache, exist_ok=True)
    tok_file = f"{cache}/bpe-{vocab}.json"
    from tokenizers import Tokenizer
    if not os.path.exists(tok_file):
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator([text[i:i + 100_000] for i in range(0, min(len(text), 3_000_000), 100_000)], vocab_size=vocab, show_progress=False)
        bpe.save(tok_file)
    tok = Tokenizer.from_file(tok_file)
    return np.array([i for e in tok.encode_batch([text[i:i + 100_000] for i in range(0, len(text), 100_000)]) for i in e.ids], dtype=np.int64)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("scenario", choices=["pretrain", "finetune", "bf16", "lora", "master", "lightning", "dcp"])
    ap.add_argument("--out", required=True)
    ap.add_argument("--size", choices=SIZES, default="small")
    ap.add_argument("--steps", type=int, default=120)
    ap.add_argument("--every", type=int, default=20)
    ap.add_argument("--base", help="directory of a pretrain checkpoint to start from; made when missing")
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed
    set_seed(a.seed)
    h, f, layers, heads, vocab = SIZES[a.size]
    cache = os.path.join(os.path.dirname(os.path.abspath(a.out)), ".make_checkpoints")
    text_a, text_b = corpus()
    ids = tokens(text_a if a.scenario == "pretrain" else text_b, vocab, cache)
    ctx = 128

    class Text(torch.utils.data.Dataset):
        def __len__(self):
            return (len(ids) - 1) // ctx
        def __getitem__(self, i):
            x = torch.from_numpy(ids[i * ctx:(i + 1) * ctx])
            return {"input_ids": x, "labels": x}

    def fresh():
        return LlamaForCausalLM(LlamaConfig(vocab_size=vocab, hidden_size=h, intermediate_size=f, num_hidden_layers=layers,
                                            num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=512,
                                            tie_word_embeddings=False))

    def trainer(model, lr, bf16):
        return Trainer(model=model, train_dataset=Text(), args=TrainingArguments(
            a.out, max_steps=a.steps, save_steps=a.every, per_device_train_batch_size=8, learning_rate=lr, lr_scheduler_type="cosine",
            warmup_steps=min(20, a.steps // 4), logging_steps=a.every, report_to=[], use_cpu=True, weight_decay=0.1, seed=a.seed,
            disable_tqdm=True, bf16=bf16))

    if a.scenario == "pretrain":
        trainer(fresh(), 1e-3, True).train()
        return

    base = a.base or f"{cache}/base-{a.size}-{a.seed}"
    if not os.path.exists(base + "/config.json"):
        saved, steps = a.out, a.steps
        ids_b, ids = ids, tokens(text_a, vocab, cache)
        a.out, a.steps, every, a.every = f"{cache}/base-run-{a.size}-{a.seed}", 300, a.every, 10_000
        t = trainer(fresh(), 1e-3, True)
        t.train()
        t.save_model(base)
        ids, a.out, a.steps, a.every = ids_b, saved, steps, every
    dtype = torch.bfloat16 if a.scenario in ("bf16", "master") else torch.float32
    model = LlamaForCausalLM.from_pretrained(base, dtype=dtype)

    if a.scenario in ("finetune", "bf16"):
        trainer(model, 2e-5, a.scenario == "finetune").train()
    elif a.scenario == "lora":
        from peft import LoraConfig, get_peft_model
        trainer(get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"])), 1e-4, True).train()
    elif a.scenario == "lightning":
        import lightning as L
        class Module(L.LightningModule):
            def __init__(self):
                super().__init__()
                self.model = model
            def training_step(self, batch, _):
                return self.model(**batch).loss
            def configure_optimizers(self):
                return torch.optim.AdamW(self.parameters(), lr=2e-5)
        L.Trainer(max_steps=a.steps, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=a.out,
                  callbacks=[L.pytorch.callbacks.ModelCheckpoint(a.out, save_top_k=-1, every_n_train_steps=a.every, save_last=True)]
                  ).fit(Module(), torch.utils.data.DataLoader(Text(), batch_size=8, shuffle=True))
    else:  # master, dcp: a plain loop
        os.makedirs(a.out, exist_ok=True)
        masters = [p.detach().float().clone().requires_grad_(True) for p in model.parameters()] if a.scenario == "master" else list(model.parameters())
        opt = torch.optim.AdamW(masters, lr=2e-5, betas=(0.9, 0.95), weight_decay=0.1)
        load = torch.utils.data.DataLoader(Text(), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(a.seed))
        for step, batch in enumerate(load, 1):
            model(**batch).loss.backward()
            if a.scenario == "master":
                for m, p in zip(masters, model.parameters()):
                    m.grad = p.grad.float()
                    p.grad = None
            opt.step()
            opt.zero_grad()
            if a.scenario == "master":
                with torch.no_grad():
                    for m, p in zip(masters, model.parameters()):
                        p.copy_(m)
            if step % a.every == 0:
                if a.scenario == "master":
                    names = [n for n, _ in model.named_parameters()]
                    torch.save({"module": model.state_dict(), "fp32_master": dict(zip(names, (m.detach() for m in masters))),
                                "optimizer": opt.state_dict(), "step": step}, f"{a.out}/step-{step}.pt")
                else:
                    import torch.distributed.checkpoint as dcp
                    dcp.save({"model": model.state_dict(), "optim": opt.state_dict()}, checkpoint_id=f"{a.out}/step-{step}", no_dist=True)
            if step >= a.steps:
                break


if __name__ == "__main__":
    main()
