"""A small model, its data, and the pace, for those who bring none of their own. Everything is the same in every process."""
import os
import sys

import torch
import torch.distributed as dist
from torch import nn

VOCABULARY = 1000


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Model(nn.Module):
    """0.8 million parameters."""

    def __init__(self, width=128, layers=4):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(layers))
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def fresh_model():
    torch.manual_seed(0)
    return Model()


def batch(step, rank=0):
    """Tokens and their successors, of 4 sequences; a language that can be learnt."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    tokens = torch.randint(0, VOCABULARY, (4, 33), generator=generator)
    tokens[:, 1::2] = (7 * tokens[:, 0:-1:2] + 3) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


def loss_of(model, tokens, targets):
    return nn.functional.cross_entropy(model(tokens).float().flatten(0, 1), targets.flatten())


def train_step(model, optimizer, step, rank=0):
    """One step; the loss before it."""
    loss = loss_of(model, *batch(step, rank))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def leave():
    """The end of a program of several ranks. Gloo's threads at times end a process that Python is taking down by std::terminate(), and
    the launcher then ends the other rank; nothing that is tested happens there."""
    if dist.is_initialized():
        dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
