"""What others make of the same tensors.

A peer gets x, the tensors of one role one after the other, and for most p, the same of the checkpoint before, and gives
back x. In memory and in one thread where it is a library; programs (zstd --patch-from, xdelta3, and whatever is slow) get
files. Every result is decompressed again and compared. Times are CPU time, the median of some passes, so that other work on
the machine does not make a peer look slow; of programs it is that of the process, reading and writing included. MB are
10^6 bytes. Peers that work on a difference are timed with it: it belongs to the method.
"""
import concurrent.futures
import os
import statistics
import time

import numpy as np
import openzl.ext as openzl
import zstandard
from pcodec import ChunkConfig, standalone
from zipnn import ZipNN

from programs import Result

WORDS = {"float32": np.uint32, "bfloat16": np.uint16, "float16": np.uint16}
SIGNED = {"float32": np.int32, "bfloat16": np.int16, "float16": np.int16}
DECONSTRUCT = {"float32": openzl.nodes.Float32Deconstruct, "bfloat16": openzl.nodes.BFloat16Deconstruct,
               "float16": openzl.nodes.Float16Deconstruct}
TEXT = {
    "memcpy": "memcpy", "zstd-3": "zstd -3", "zstd-19": "zstd -19", "zipnn": "ZipNN", "openzl": "OpenZL", "pcodec": "pcodec",
    "zstd-3-patch": "zstd -3 --patch-from", "zstd-19-patch": "zstd -19 --patch-from", "xdelta3": "xdelta3 -9",
    "zipnn-xor": "ZipNN on XOR", "planes-xor": "planes + zstd -3 on XOR", "planes-xor-19": "planes + zstd -19 on XOR",
    "pcodec-difference": "pcodec on difference", "pcodec-difference-12": "pcodec -12 on difference",
    "openzl-difference": "OpenZL on difference",
}
ALONE = ("zstd-3", "zstd-19", "zipnn", "openzl", "pcodec")  # these need no checkpoint before
SLOW = ("zstd-19", "zstd-19-patch", "xdelta3", "planes-xor-19")
# What a peer's chain begins with: its way without a checkpoint before.
KEYFRAME = {"zstd-3": "zstd-3", "zstd-3-patch": "zstd-3", "zipnn": "zipnn", "zipnn-xor": "zipnn", "planes-xor": "zipnn",
            "openzl": "openzl", "openzl-difference": "openzl", "pcodec": "pcodec", "pcodec-difference": "pcodec",
            "pcodec-difference-12": "pcodec"}


def _ordered(words):
    """Floats as integers in the order of their values; its own inverse up to the sign bit's place."""
    sign = words.dtype.type(1 << (8 * words.itemsize - 1))
    return np.where(words & sign, ~words, words | sign)


def _unordered(words):
    sign = words.dtype.type(1 << (8 * words.itemsize - 1))
    return np.where(words & sign, words ^ sign, ~words)


# --- each way: encode(x, p) gives an object and its size, decode(object, p) the bytes ---

class Copy:
    def __init__(self, x, _):
        self.out, self.back = np.empty_like(x), np.empty_like(x)
        self.out[:] = self.back[:] = 1

    def encode(self, x, _):
        np.copyto(self.out, x)
        return self.out, len(x)

    def decode(self, packed, _):
        np.copyto(self.back, packed)
        return self.back


class Zstd:
    def __init__(self, level, threads):
        self.encoder = zstandard.ZstdCompressor(level=level, threads=0 if threads == 1 else threads)
        self.decoder = zstandard.ZstdDecompressor()

    def encode(self, x, _):
        packed = self.encoder.compress(x)
        return packed, len(packed)

    def decode(self, packed, _):
        return np.frombuffer(self.decoder.decompress(packed), np.uint8)


class Zipnn:
    """It overwrites what it is given, so each call gets a copy: made by fresh(), before the clock starts."""

    def __init__(self, dtype, threads, xor):
        self.coder = ZipNN(input_format="byte", bytearray_dtype=dtype, threads=threads)
        self.xor = xor

    def fresh(self, x):
        return bytearray(x)

    def encode(self, copy, p):
        if self.xor:
            view = np.frombuffer(copy, np.uint8)
            np.bitwise_xor(view, p, out=view)
        packed = self.coder.compress(copy)
        return packed, len(packed)

    def decode(self, packed, p):
        plain = np.frombuffer(self.coder.decompress(packed), np.uint8)
        return np.bitwise_xor(plain, p) if self.xor else plain


class Planes:
    def __init__(self, dtype, level):
        self.width = np.dtype(WORDS[dtype]).itemsize
        self.zstd = Zstd(level, 1)

    def split(self, x, p):
        return np.ascontiguousarray((x ^ p).reshape(-1, self.width).T)

    def encode(self, x, p):
        packed = [self.zstd.encode(plane, None)[0] for plane in self.split(x, p)]
        return packed, sum(map(len, packed))

    def decode(self, packed, p):
        planes = np.stack([self.zstd.decode(plane, None) for plane in packed])
        return np.ascontiguousarray(planes.T).reshape(-1) ^ p


class Pcodec:
    """Of the wrapping difference of floats as ordered integers, which is small where they are close; or of the floats (as 16-bit
    integers where it does not know their type)."""

    def __init__(self, dtype, level, difference):
        self.words, self.signed, self.difference = WORDS[dtype], SIGNED[dtype], difference
        self.alone = np.dtype({"float32": np.float32, "float16": np.float16}.get(dtype, np.uint16))
        self.ordered = dtype == "bfloat16"
        self.config = ChunkConfig(compression_level=level)

    def encode(self, x, p):
        words = x.view(self.words)
        if self.difference:
            numbers = (_ordered(words) - _ordered(p.view(self.words))).view(self.signed)
        else:
            numbers = _ordered(words) if self.ordered else words.view(self.alone)
        packed = standalone.simple_compress(numbers, self.config)
        return packed, len(packed)

    def decode(self, packed, p):
        numbers = standalone.simple_decompress(packed)
        words = numbers.view(self.words)
        if self.difference:
            words = _unordered(words + _ordered(p.view(self.words)))
        elif self.ordered:
            words = _unordered(words)
        return words.view(np.uint8)


class OpenZL:
    """Of floats: exponents apart, each part as the library thinks best. Of a difference of ordered integers: zigzag, byte planes
    (the best of the graphs that were tried: FieldLz, Compress, Deconstruct and TransposeSplit, with and without Zigzag)."""

    def __init__(self, dtype, difference):
        self.words, self.difference = WORDS[dtype], difference
        graphs, nodes = openzl.graphs, openzl.nodes
        self.compressor = openzl.Compressor()
        self.compressor.set_parameter(openzl.CParam.FormatVersion, openzl.MAX_FORMAT_VERSION)
        generic = graphs.Compress()(self.compressor)
        if difference:
            planes = nodes.TransposeSplit()(self.compressor, generic)
            start = nodes.Zigzag()(self.compressor, nodes.ConvertNumToStructLE()(self.compressor, planes))
        elif dtype == "float32":
            start = generic
        else:
            start = DECONSTRUCT[dtype]()(self.compressor, sign_frac=generic, exponent=generic)
        self.compressor.select_starting_graph(start)

    def encode(self, x, p):
        words = x.view(self.words)
        if self.difference:
            words = _ordered(words) - _ordered(p.view(self.words))
        context = openzl.CCtx()
        context.ref_compressor(self.compressor)
        packed = context.compress([openzl.Input(openzl.Type.Numeric, words)])
        return packed, len(packed)

    def decode(self, packed, p):
        words = openzl.DCtx().decompress(packed)[0].content.as_nparray().view(self.words)
        if self.difference:
            words = _unordered(words + _ordered(p.view(self.words)))
        return words.view(np.uint8)


def _library(name, x, dtype, threads):
    return {
        "memcpy": lambda: Copy(x, None),
        "zstd-3": lambda: Zstd(3, threads),
        "zipnn": lambda: Zipnn(dtype, threads, False),
        "zipnn-xor": lambda: Zipnn(dtype, threads, True),
        "planes-xor": lambda: Planes(dtype, 3),
        "pcodec": lambda: Pcodec(dtype, 8, False),
        "pcodec-difference": lambda: Pcodec(dtype, 8, True),
        "pcodec-difference-12": lambda: Pcodec(dtype, 12, True),
        "openzl": lambda: OpenZL(dtype, False),
        "openzl-difference": lambda: OpenZL(dtype, True),
    }[name]()


# --- measuring ---

def _memory(field):
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":")) * 1024


def _reset_peak():
    """So that VmHWM is that of what follows. False where the kernel will not."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")
    except OSError:
        return False
    return True


def _rates(size, encode, decode):
    return {"encode_MBps": size / 1e6 / max(statistics.median(encode), 1e-9),
            "decode_MBps": size / 1e6 / max(statistics.median(decode), 1e-9)}


def library(name, x, p, dtype, passes, threads=1):
    """One peer that is a library. With several threads times are wall time."""
    way = _library(name, x, dtype, threads)
    fresh = getattr(way, "fresh", None)
    clock = time.process_time if threads == 1 else time.perf_counter
    encode_times, decode_times, size, memory = [], [], 0, None
    for turn in range(passes):
        given = fresh(x) if fresh else x
        measured = turn == 0 and _reset_peak()
        before = _memory("VmRSS")
        start = clock()
        packed, size = way.encode(given, p)
        middle = clock()
        plain = way.decode(packed, p)
        end = clock()
        if measured:
            memory = _memory("VmHWM") - before
        if not np.array_equal(plain, x):
            raise RuntimeError(f"{name} did not give the bytes back")
        encode_times.append(middle - start)
        decode_times.append(end - middle)
    return {"bytes": size, **_rates(len(x), encode_times, decode_times), "memory": memory}


def program(name, x, p, dtype, scratch):
    """One peer that is a program, once."""
    new, old, packed, back = (str(scratch / f"{name}.{part}") for part in ("new", "old", "packed", "back"))
    source = Planes(dtype, 3).split(x, p).reshape(-1) if name == "planes-xor-19" else x
    source.tofile(new)
    if p is not None:
        p.tofile(old)
    level = "-19" if "-19" in name else "-3"
    if name == "xdelta3":
        encode = ["xdelta3", "-e", "-q", "-f", "-9", "-S", "djw", "-B", str(1 << 29), "-s", old, new, packed]
        decode = ["xdelta3", "-d", "-q", "-f", "-B", str(1 << 29), "-s", old, packed, back]
    else:
        patch = [f"--patch-from={old}"] if name.endswith("-patch") else []
        encode = ["zstd", "-q", "-f", "--single-thread", level, *patch, new, "-o", packed]
        decode = ["zstd", "-d", "-q", "-f", "--memory=2048MB", *patch, packed, "-o", back]
    done, undone = Result(*encode), Result(*decode)
    if not np.array_equal(np.fromfile(back, np.uint8), source.reshape(-1)):
        raise RuntimeError(f"{name} did not give the bytes back")
    size = os.path.getsize(packed)
    for path in (new, old, packed, back):
        if os.path.exists(path):
            os.unlink(path)
    return {"bytes": size, **_rates(len(x), [done.cpu], [undone.cpu]), "memory": max(done.memory, undone.memory)}


def around(data, before):
    """What zstd -3 makes of the bytes around the tensors, alone and after the same of the checkpoint before."""
    alone = len(zstandard.ZstdCompressor(level=3).compress(data))
    if before is None:
        return {"alone": alone}
    prefix = zstandard.ZstdCompressionDict(before.tobytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return {"alone": alone, "patch": len(zstandard.ZstdCompressor(level=3, dict_data=prefix).compress(data))}


def measure(names, x, p, dtype, passes, threads, scratch):
    """name: figures, for those that can be had (a peer that needs a checkpoint before is left out without one). Slow ones go side by
    side, which costs them a little speed, and none of their bytes."""
    names = [name for name in names if p is not None or name in ALONE or name == "memcpy"]
    found = {}
    for name in names:
        if name.endswith("-patch") and name not in SLOW:
            found[name] = program(name, x, p, dtype, scratch)
        elif name not in SLOW:
            found[name] = library(name, x, p, dtype, 1 if name.endswith("-12") else passes)
    slow = [name for name in names if name in SLOW]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found.update(zip(slow, pool.map(lambda name: program(name, x, p, dtype, scratch), slow)))
    return found


def on_all_threads(x, p, dtype, passes, threads):
    """Of those that have threads at all."""
    return {name: library(name, x, p, dtype, passes, threads) for name in ("zstd-3", "zipnn", "zipnn-xor")
            if p is not None or name in ALONE}
