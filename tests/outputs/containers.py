"""Files of tensors, written byte for byte as said here, so that no library's version can change them."""

import json
import struct
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    dtype: str  # as safetensors spells it
    shape: tuple
    data: bytes


def _stored(dtype, kind, values):
    values = np.asarray(values)
    return Tensor(dtype, values.shape, values.astype(kind).tobytes())


def f64(values):
    return _stored("F64", "<f8", values)


def f32(values):
    return _stored("F32", "<f4", values)


def f16(values):
    return _stored("F16", "<f2", values)


def bf16(values):
    """Rounded to nearest, half to even."""
    values = np.asarray(values)
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    return _stored("BF16", "<u2", ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).reshape(values.shape))


def i64(values):
    return _stored("I64", "<i8", values)


def i8(values):
    return _stored("I8", "i1", values)


def u8(values, dtype="U8"):
    """Bytes; of an 8-bit float, its codes."""
    return _stored(dtype, "u1", values)


def marker(**keys):
    return u8(list(json.dumps(keys, separators=(",", ":")).encode()))


def write_safetensors(path, tensors, metadata=None):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, tensor in tensors.items():
        end = len(data) + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [len(data), end]}
        data += tensor.data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_shards(folder, tensors, count=2):
    """Tensors in turn into `count` files, and their index."""
    folder.mkdir()
    names = list(tensors)
    where = {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in names[i::count]})
        where |= dict.fromkeys(names[i::count], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


GGUF_TYPES = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30}


def write_gguf(path, tensors, alignment=32):
    """Without metadata. Of a Q8_0 tensor the shape is that of its values."""
    header, data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 0), b""
    for name, tensor in tensors.items():
        data += b"\0" * (-len(data) % alignment)
        shape = tuple(reversed(tensor.shape))
        header += struct.pack("<Q", len(name)) + name.encode()
        header += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, GGUF_TYPES[tensor.dtype], len(data))
        data += tensor.data
    path.write_bytes(header + b"\0" * (-len(header) % alignment) + data)
