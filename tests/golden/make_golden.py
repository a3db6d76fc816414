#!/usr/bin/env python3
"""Makes the golden files of this folder smaller copies of full reference vectors.

Provenance: the vectors were written by comfy-kitchen 0.2.27 on a CPU, fed the weights upcast to F32. Each
<dtype>_<N>x<K>.safetensors holds `src.weight` in its source type and, per format, the tensors that the library stores
(`<format>.weight`, `<format>.weight_scale`) and what it decodes them to (`<format>.decoded`, F32). Rows 1 to 3 of the larger
cases are all zero, tiny (1e-6), and of alternating signs of one magnitude. (make_w4a8.py made those of comfy-kitchen 0.2.40.)

Kept here: codes and scales of all formats whole; `decoded` cut to its first rows, of formats with swizzled scales to those that show
every part of the swizzle.

usage: make_golden.py FOLDER_OF_FULL_VECTORS
"""
import json
import pathlib
import struct
import sys

DECODED_ROWS = {"int8": 8}
SWIZZLED_VALUES = 10000


def read(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    payload = data[8 + length :]
    return metadata, {name: (t["dtype"], t["shape"], payload[slice(*t["data_offsets"])]) for name, t in header.items()}


def write(path, metadata, tensors):
    header, offset = {"__metadata__": metadata}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def main(folder):
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        metadata, tensors = read(path)
        kept = {}
        for name, (dtype, shape, data) in tensors.items():
            if name.startswith(("nvfp4", "mxfp8")):
                rows = max(5, SWIZZLED_VALUES // shape[-1]) if shape else 0
            else:
                rows = DECODED_ROWS.get(name.split("_")[0], 5)
            if name.endswith(".decoded") and shape[0] > rows:
                data = data[: len(data) // shape[0] * rows]
                shape = [rows] + shape[1:]
            kept[name] = (dtype, shape, data)
        write(pathlib.Path(__file__).parent / path.name, metadata, kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
