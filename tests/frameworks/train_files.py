"""Files of formats other than PyTorch's, each written by its own package, while a model trains.

    train_files.py ROOT RUN...

gguf           model-stepN.gguf by gguf.GGUFWriter: matrices in Q8_0, the rest in F32
npz            model-stepN.npz by numpy.savez
npy            step-N/NAME.npy by numpy.save
onnx           step-N/model.onnx and model.onnx.data by onnx.save_model
torchao        model-stepN.pt, int8 weights by torchao.quantization, torch.save
bitsandbytes   model-stepN.safetensors, nf4 weights by bitsandbytes.functional
"""
import copy
import sys
import time

import numpy as np
import torch
from safetensors.torch import save_file

import small
from recorder import Recorder

SAVES = 5
PAUSE = 0.3  # seconds between two; all of them stay


def write_gguf(path, model):
    import gguf
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(len(model.layers))
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_npz(path, model):
    np.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})


def write_npy(path, model):
    path.mkdir()
    for name, tensor in model.state_dict().items():
        np.save(path / f"{name}.npy", tensor.numpy())


def write_onnx(path, model):
    import onnx
    path.mkdir()
    names = [name for name, tensor in model.state_dict().items() if tensor.ndim == 2]
    nodes = [onnx.helper.make_node("MatMul", [f"x{i}", name], [f"y{i}"]) for i, name in enumerate(names)]
    value = lambda name, shape: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    shapes = [model.state_dict()[name].shape for name in names]
    graph = onnx.helper.make_graph(
        nodes, "model", [value(f"x{i}", [1, shape[0]]) for i, shape in enumerate(shapes)],
        [value(f"y{i}", [1, shape[1]]) for i, shape in enumerate(shapes)],
        [onnx.numpy_helper.from_array(model.state_dict()[name].numpy(), name) for name in names])
    onnx.save_model(onnx.helper.make_model(graph), path / "model.onnx", save_as_external_data=True,
                    all_tensors_to_one_file=True, location="model.onnx.data")


def write_torchao(path, model):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_
    model = copy.deepcopy(model)
    quantize_(model, Int8WeightOnlyConfig())
    torch.save(model.state_dict(), path)


def write_bitsandbytes(path, model):
    import bitsandbytes.functional as functional
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2:
            state[name], about = functional.quantize_4bit(tensor.clone(), quant_type="nf4")
            state.update({f"{name}.{key}": value for key, value in about.as_dict(packed=True).items()})
        else:
            state[name] = tensor
    save_file(state, path)


WRITERS = {
    "gguf": (write_gguf, "model-step{}.gguf"),
    "npz": (write_npz, "model-step{}.npz"),
    "npy": (write_npy, "step-{}"),
    "onnx": (write_onnx, "step-{}"),
    "torchao": (write_torchao, "model-step{}.pt"),
    "bitsandbytes": (write_bitsandbytes, "model-step{}.safetensors"),
}


def train(root, run):
    recorder, (write, name) = Recorder(root, run), WRITERS[run]
    model = small.fresh_model()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(1, SAVES + 1):
        small.train_step(model, optimizer, step)
        path = recorder.watched / name.format(step)
        write(path, model)
        recorder.complete(path, step, keep=True)
        time.sleep(PAUSE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        train(sys.argv[1], name)
