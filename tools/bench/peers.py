"""What others make of the same file: zstd -3, ZipNN on the file, ZipNN on the XOR with the previous checkpoint's file.

All of it in memory, in one thread. Every result is decompressed again and compared. Times are CPU time, the median of
some passes, so that other work on the machine does not make a peer look slow. MB are 10^6 bytes.
"""
import json
import statistics
import struct
import time
import zipfile

import numpy as np
import zstandard
from zipnn import ZipNN

MIN_TENSOR = 64  # bytes; scalars stay where they are


class File:
    """The bytes of a checkpoint file, where its tensors are, and the type that most of them have."""

    def __init__(self, path):
        self.path = path
        self.data = np.fromfile(path, np.uint8)
        self.tensors = {}  # name: (offset, length), ascending
        if str(path).endswith(".safetensors"):
            self._parse_safetensors()
        else:
            self._parse_torch_zip()

    def _parse_safetensors(self):
        length = struct.unpack("<Q", self.data[:8].tobytes())[0]
        header = json.loads(self.data[8:8 + length].tobytes())
        header.pop("__metadata__", None)
        sizes = {}
        for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = tensor["data_offsets"]
            self.tensors[name] = (8 + length + begin, end - begin)
            sizes[tensor["dtype"]] = sizes.get(tensor["dtype"], 0) + end - begin
        self.dtype = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}[max(sizes, key=sizes.get)]

    def _parse_torch_zip(self):
        with zipfile.ZipFile(self.path) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            pickle = next(m for m in members if m.filename.endswith("/data.pkl"))
            text = archive.read(pickle)
        for member in members:
            name = member.filename.split("/", 1)[1]
            if name.startswith("data/") and member.file_size >= MIN_TENSOR:
                at = member.header_offset
                lengths = struct.unpack("<HH", self.data[at + 26:at + 30].tobytes())
                self.tensors[name] = (at + 30 + sum(lengths), member.file_size)
        # The pickle names the class of every storage; it is not run.
        self.dtype = "bfloat16" if b"BFloat16Storage" in text else "float32"

    def split(self):
        """All tensors' bytes behind one another, and all that is left over."""
        glue = np.ones(len(self.data), bool)
        for offset, length in self.tensors.values():
            glue[offset:offset + length] = False
        parts = [self.data[offset:offset + length] for offset, length in self.tensors.values()]
        return np.concatenate(parts), self.data[glue]

    def aligned(self, other):
        """Other's tensors in the order of ours; zeros for what it does not have in this size."""
        parts = []
        for name, (offset, length) in self.tensors.items():
            theirs = other.tensors.get(name)
            fits = theirs is not None and theirs[1] == length
            parts.append(other.data[theirs[0]:theirs[0] + length] if fits else np.zeros(length, np.uint8))
        return np.concatenate(parts)


def measure(passes, size, encode, decode, original):
    """encode() gives (packed bytes, their number); decode(packed) must give `original`."""
    encode_times, decode_times = [], []
    for _ in range(passes):
        start = time.process_time()
        packed, count = encode()
        middle = time.process_time()
        plain = decode(packed)
        end = time.process_time()
        encode_times.append(middle - start)
        decode_times.append(end - middle)
        if not np.array_equal(np.frombuffer(plain, np.uint8), original):
            raise RuntimeError("a peer did not give the bytes back")
    return {"bytes": count, "ratio": size / count,
            "encode_MBps": size / 1e6 / statistics.median(encode_times),
            "decode_MBps": size / 1e6 / statistics.median(decode_times)}


def zstd(file, passes):
    data = file.data.tobytes()
    encoder, decoder = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()

    def encode():
        packed = encoder.compress(data)
        return packed, len(packed)

    return measure(passes, len(data), encode, decoder.decompress, file.data)


class Copies:
    """ZipNN overwrites what it is given, so each call gets a copy of its own, made before the clock starts."""

    def __init__(self, data, passes):
        self.copies = [bytearray(data) for _ in range(passes)]

    def next(self):
        return self.copies.pop()


def zipnn(file, passes):
    coder = ZipNN(input_format="byte", bytearray_dtype=file.dtype, threads=1)
    copies = Copies(file.data, passes)

    def encode():
        packed = coder.compress(copies.next())
        return packed, len(packed)

    return measure(passes, len(file.data), encode, coder.decompress, file.data)


def zipnn_xor(file, previous, passes):
    """Tensors are matched by name; taking the XOR belongs to the method and is timed. The glue goes through zstd -3."""
    coder = ZipNN(input_format="byte", bytearray_dtype=file.dtype, threads=1)
    tensors, glue = file.split()
    reference = file.aligned(previous)
    glue_size = len(zstandard.ZstdCompressor(level=3).compress(glue.tobytes()))
    copies = Copies(tensors, passes)

    def encode():
        copy = copies.next()
        view = np.frombuffer(copy, np.uint8)
        np.bitwise_xor(view, reference, out=view)
        packed = coder.compress(copy)
        return packed, len(packed) + glue_size

    def decode(packed):
        plain = np.frombuffer(coder.decompress(packed), np.uint8)
        return np.bitwise_xor(plain, reference)

    return measure(passes, len(file.data), encode, decode, tensors)
