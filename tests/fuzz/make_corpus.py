#!/usr/bin/env python3
"""make_corpus.py DIR [NAME...] - writes the first inputs of the fuzz targets: tiny files by the libraries themselves.

Needs torch, safetensors, numpy, onnx and gguf; what is missing is left out. Not part of the build: the results are in corpus/.
"""
import io
import os
import struct
import sys
import tempfile

OUT = os.path.abspath(sys.argv[1])


def put(target, name, data):
    os.makedirs(os.path.join(OUT, target), exist_ok=True)
    with open(os.path.join(OUT, target, name), "wb") as f:
        f.write(data)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def pair(companion, data):
    """What fuzz_split() takes apart."""
    return struct.pack("<I", len(companion)) + companion + data


def torch_files(tmp):
    import torch
    import zipfile

    linear = torch.nn.Linear(4, 8)
    tensors = {
        "tied": {"a": linear.weight, "b": linear.weight, "bias": linear.bias},
        "kinds": {"t": torch.zeros(4, 8).t(), "slice": torch.zeros(64)[8:40], "half": torch.zeros(40, dtype=torch.bfloat16),
                  "f8": torch.zeros(80, dtype=torch.float8_e4m3fn), "c": torch.zeros(8, dtype=torch.complex128)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(4, 8)}},
                      "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]},
        "module": linear,
    }
    tensors["lightning"] = {"global_step": 4, "callbacks": {
        "ModelCheckpoint{'monitor': 'val_loss'}": {"monitor": "val_loss", "best_k_models": {
            "/x/b.ckpt": torch.tensor(0.5), "/x/a.ckpt": torch.tensor(0.25, dtype=torch.bfloat16)}},
        "ModelCheckpoint{'monitor': 'acc'}": {"monitor": "acc", "best_k_models": {"a.ckpt": 0.75}}}}
    for name, value in tensors.items():
        path = os.path.join(tmp, name + ".pt")
        torch.save(value, path)
        put("zip", name + ".pt", read(path))
        with zipfile.ZipFile(path) as z:
            put("pickle", name + ".pkl", z.read(name + "/data.pkl"))
        if name == "module":  # the old format holds the path of its source
            continue
        torch.save(value, path, _use_new_zipfile_serialization=False)
        put("legacy", name + ".pt", read(path))
    torch.save(tensors["tied"], path, _use_new_zipfile_serialization=False, pickle_protocol=4)
    put("legacy", "protocol4.pt", read(path))
    put("formats", "legacy.pt", read(path))


def dcp_files(tmp):
    import torch
    import torch.distributed.checkpoint as dcp

    path = "dcp"  # it stands in .metadata
    os.chdir(tmp)
    dcp.save({"w": torch.zeros(4, 8), "rng": {"cpu": torch.zeros(80, dtype=torch.uint8)}, "lr": [1, 2], "step": 7},
             checkpoint_id=path, no_dist=True)
    metadata = read(os.path.join(path, ".metadata"))
    put("dcp", "one_process", pair(metadata, read(os.path.join(path, "__0_0.distcp"))))
    put("pickle", "metadata.pkl", metadata)


def safetensors_files(tmp):
    import torch
    from safetensors.torch import save

    put("safetensors", "two", save({"a": torch.zeros(4, 8), "b": torch.zeros(40, dtype=torch.bfloat16)}, {"format": "pt"}))
    put("safetensors", "none", save({}))


def numpy_files(tmp):
    import numpy as np

    arrays = {"w": np.zeros((4, 8), "f4"), "f": np.asfortranarray(np.zeros((4, 8))), "be": np.zeros(20, ">f4"),
              "o": np.array([{}, 1], dtype=object), "r": np.zeros(8, [("a", "<f4"), ("b", "<i4")])}
    file = io.BytesIO()
    np.savez(file, **arrays)
    put("zip", "arrays.npz", file.getvalue())
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    put("zip", "deflated.npz", file.getvalue())
    for name in ("w", "r"):
        file = io.BytesIO()
        np.save(file, arrays[name])
        put("formats", name + ".npy", file.getvalue())


def onnx_files(tmp):
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(np.zeros((4, 8), "f4"), "w"), numpy_helper.from_array(np.zeros(40, "f2"), "b"),
               helper.make_tensor("typed", TensorProto.FLOAT, [20], list(range(20)))]
    value = [helper.make_tensor_value_info("x", 1, [1])]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value, value, initializer=weights)
    model = helper.make_model(graph)
    put("onnx", "inside", pair(model.SerializeToString(), b""))
    path = os.path.join(tmp, "m.onnx")
    onnx.save(model, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    put("onnx", "beside", pair(read(path), read(path + ".data")))


def gguf_files(tmp):
    import gguf
    import numpy as np

    path = os.path.join(tmp, "m.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bb", "ccc"])
    writer.add_array("ids", [1, 2, 3])
    writer.add_float32("eps", 1e-5)
    writer.add_bool("flag", True)
    writer.add_string("note", "text")
    writer.add_tensor("w", np.zeros((2, 32), np.float32))
    writer.add_tensor("h", np.zeros(40, np.float16))
    q8 = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("q", gguf.quants.quantize(np.zeros((4, 32), np.float32), q8), raw_dtype=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    put("formats", "m.gguf", read(path))


for make in (torch_files, dcp_files, safetensors_files, numpy_files, onnx_files, gguf_files):
    if sys.argv[2:] and make.__name__ not in sys.argv[2:]:
        continue
    try:
        with tempfile.TemporaryDirectory() as directory:
            make(directory)
    except ImportError as missing:
        print(f"{make.__name__}: left out: {missing}", file=sys.stderr)
