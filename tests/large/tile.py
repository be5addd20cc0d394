"""tile.py CHECKPOINT OUT SIZE [state] - a checkpoint as large as wanted, made of a real one that a Hugging Face Trainer wrote.

The tensors of model.safetensors are repeated, as if the model had so many more layers, until there are SIZE bytes. Each tile begins with
another row of theirs, since tensors that are the same are stored once. With `state`, AdamW's moments stand beside them in a file of their
own, named after their weights, and count for SIZE: they are read from optimizer.pt, by torch. OUT becomes the model's file, or with `state`
a directory of both. Memory does not grow with SIZE.
"""
import json
import os
import re
import struct
import sys

WITHIN_LAYER = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "input_layernorm", "post_attention_layernorm"]


def write(path, tensors, wanted):
    """tensors: [(name with a %s for the tile, dtype, shape, bytes)]; as many tiles as `wanted` bytes take."""
    tile_bytes = sum(len(data) for _, _, _, data in tensors)
    tiles, header, at = -(-wanted // tile_bytes), {}, 0
    for tile in range(tiles):
        for name, dtype, shape, data in tensors:
            header[name % f"tile.{tile}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
            at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as target:
        target.write(struct.pack("<Q", len(text)) + text)
        for tile in range(tiles):
            for _, _, shape, data in tensors:
                first = tile % shape[0] * (len(data) // shape[0]) if shape else 0
                target.write(memoryview(data)[first:])
                target.write(memoryview(data)[:first])
    return tiles


def read_model(path):
    with open(path, "rb") as source:
        header = json.loads(source.read(struct.unpack("<Q", source.read(8))[0]))
        data = source.read()
    header.pop("__metadata__", None)
    return [("%s." + name, t["dtype"], t["shape"], data[slice(*t["data_offsets"])]) for name, t in header.items()]


def module_order(name):
    """Where a Llama has its parameter, as the optimizer counts them: what decays first."""
    layer = re.search(r"layers\.(\d+)\.", name)
    if layer:
        return 1, int(layer[1]), next(i for i, part in enumerate(WITHIN_LAYER) if part in name)
    return (0 if "embed" in name else 3 if "lm_head" in name else 2), 0, 0


def read_moments(path, model):
    import torch

    optimizer = torch.load(path, map_location="cpu")
    numbers = [number for group in optimizer["param_groups"] for number in group["params"]]
    weights = sorted(model, key=lambda t: (len(t[2]) < 2, module_order(t[0])))
    if len(numbers) != len(weights):
        raise SystemExit(f"tile.py: '{path}' has {len(numbers)} parameters, the model {len(weights)}")
    moments = []
    for number, (name, _, shape, _) in zip(numbers, weights):
        for key in ("exp_avg", "exp_avg_sq"):
            tensor = optimizer["state"][number][key]
            if list(tensor.shape) != shape:
                raise SystemExit(f"tile.py: {name} has the shape {shape}, its {key} {list(tensor.shape)}")
            dtype = {torch.float32: "F32", torch.bfloat16: "BF16"}[tensor.dtype]
            moments.append((f"optim.{name}.{key}", dtype, shape, bytes(tensor.contiguous().view(torch.uint8).numpy())))
    return moments


def main(checkpoint, out, size, state=None):
    model = read_model(f"{checkpoint}/model.safetensors")
    if not state:
        write(out, model, int(size))
        return
    moments = read_moments(f"{checkpoint}/optimizer.pt", model)
    own, theirs = (sum(len(t[3]) for t in tensors) for tensors in (model, moments))
    os.mkdir(out)
    tiles = write(f"{out}/model.safetensors", model, int(size) * own // (own + theirs))
    write(f"{out}/optim.safetensors", moments, tiles * theirs)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5) or sys.argv[4:] not in ([], ["state"]):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
