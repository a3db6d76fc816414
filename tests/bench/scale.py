"""Whole conversions of models of growing size against copying the same bytes: scale.py QMILL [--quick] [--only NAME]

Three ways: plain rounding with rotation, the same with --low-memory, and gptq with a calibration file (on smaller models: it is
slower). Copying reads the input and writes as many bytes as the output has. All are measured in turn, without waiting for the disk, three
rounds, medians. The files lie in memory (/dev/shm) where there is room, else in TMPDIR. --quick: models of 2 to 64 MB.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import sys
import tempfile

from whole_run import copy, run

ROUNDS = 3
CHUNK = 1 << 20

# Of the square layers, then of the whole models in bytes.
LADDERS = {"rtn": (4096, (0.5e9, 1e9, 2e9, 4e9)), "gptq": (2048, (0.06e9, 0.12e9, 0.25e9))}
QUICK_LADDERS = {"rtn": (512, (8e6, 16e6, 32e6, 64e6)), "gptq": (512, (2e6, 4e6))}
WAYS = {"rtn": {"rtn": ["--optimizer", "rtn"], "rtn --low-memory": ["--optimizer", "rtn", "--low-memory"]},
        "gptq": {"gptq, calibrated": ["--optimizer", "gptq", "--calibration-data", "ROWS"]}}


def write_tensors(path, tensors, values):
    """tensors: (name, type, shape, bytes). One megabyte of values, over and over."""
    header, offset = {}, 0
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, offset, CHUNK):
            file.write(values[: min(CHUNK, offset - begin)])


def normal_bf16():
    generator = random.Random(1)
    return b"".join(struct.pack("<f", generator.gauss(0, 0.02))[2:] for _ in range(CHUNK // 2))


def make_model(path, size, width, values):
    layer = 2 * width * width
    write_tensors(path, [(f"blocks.{i}.weight", "BF16", [width, width], layer) for i in range(max(1, round(size / layer)))], values)


def make_inputs(path, model, width, values):
    """Rows for every layer: twice as many as columns."""
    with open(model, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    names = [name.removesuffix(".weight") for name in header]
    # All layers share the rows of the first, so that the file does not outgrow the model.
    metadata = {"shared_inputs": json.dumps({name: names[0] for name in names[1:]})}
    size = 2 * 2 * width * width
    text = json.dumps({"__metadata__": metadata,
                       names[0] + ".input": {"dtype": "BF16", "shape": [2 * width, width], "data_offsets": [0, size]}}).encode()
    text += b" " * (-len(text) % 8)
    generator = random.Random(2)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in range(0, size, CHUNK):  # rows that differ: their Hessian must not be singular
            turn = 2 * generator.randrange(CHUNK // 2)
            file.write((values[turn:] + values[:turn])[: min(CHUNK, size)])


def remove(path):
    if os.path.exists(path):
        os.unlink(path)


def measure(qmill, folder, size, width, values, ways):
    """Prints a line per way."""
    model, rows, target = f"{folder}/model.safetensors", f"{folder}/rows.safetensors", f"{folder}/out.safetensors"
    make_model(model, size, width, values)
    make_inputs(rows, model, width, values)
    bytes_read = os.path.getsize(model)
    figures = {name: ([], [], []) for name in ways}  # seconds, MiB, ratios to the copy beside it
    for _ in range(ROUNDS):
        for name, flags in ways.items():
            words = [qmill, "-i", model, "-o", target, "--verbose", "MINIMAL", "--filter", "none", "--no-sync"]
            words += [flag.replace("ROWS", rows) for flag in flags]
            remove(target)
            seconds, memory = run(words)
            written = os.path.getsize(target)
            remove(target)
            copied = copy(model, target, written, sync=False)
            for values_of, value in zip(figures[name], (seconds, memory, seconds / copied)):
                values_of.append(value)
    for path in (model, rows, target):
        remove(path)
    for name, (seconds, memory, ratios) in figures.items():
        middle = statistics.median(seconds)
        print(f"  {bytes_read / 1e6:6.0f} MB  {name:<22} {bytes_read / 1e6 / middle:8.0f} MB/s  {statistics.median(memory):6.0f} MiB  "
              f"{statistics.median(ratios):6.2f} x the copy   ({min(seconds):.2f} to {max(seconds):.2f} s)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("qmill")
    parser.add_argument("--quick", action="store_true", help="small models")
    parser.add_argument("--only", choices=["rtn", "gptq"], help="one of the two ladders")
    arguments = parser.parse_args()
    ladders = QUICK_LADDERS if arguments.quick else LADDERS
    if arguments.only:
        ladders = {arguments.only: ladders[arguments.only]}
    values = normal_bf16()
    # Input, output, calibration file, and as much again for the program.
    needed = 3 * max(max(sizes) for _, sizes in ladders.values())
    memory = "/dev/shm"
    place = memory if os.path.isdir(memory) and shutil.disk_usage(memory).free > needed else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        start = statistics.median(run([arguments.qmill, "--version"])[0] for _ in range(ROUNDS))
        print(f"Models of equal layers, BF16 -> INT8 per row, rotated; files in {folder}; medians of {ROUNDS}, with {start:.2f} s for the "
              "program's start", flush=True)
        for name, (width, sizes) in ladders.items():
            for size in sizes:
                measure(arguments.qmill, folder, size, width, values, WAYS[name])


main()
