"""Runs command lines of qmill, each with an output of its own, and hashes what they write."""

import hashlib
import json
import os
import shlex
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor

# MKL and ATen choose kernels by the processor, and the last bits of a product depend on the kernel. These are the ones that every processor
# has: without them the pinned hashes would hold on one kind of machine only. They are those of one version of LibTorch nevertheless.
SAME_ON_EVERY_PROCESSOR = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}

AT_ONCE = 2
FILTERS = {"--filter", "--t5xxl", "--flux"}
EDITS = {"edit", "--edit-quant"}  # computes nothing, and takes no --threads


def output_of(name):
    """An output that is no model has its ending in the name."""
    return f"out/{name}" if name.endswith(".json") else f"out/{name}.safetensors"


def words_of(name, line, threads):
    words = shlex.split(line)
    # These models are made to have all of their layers quantized, for any reader.
    if words[0] == "convert" and EDITS.isdisjoint(words):
        words += [] if FILTERS.intersection(words) else ["--filter", "none"]
        words += [] if "--target" in words else ["--target", "any"]
    if EDITS.isdisjoint(words):
        words += ["--threads", str(threads)]
    return [*words, "--no-sync", "-o", output_of(name)]


def run_all(command, folder, lines, threads, environment=SAME_ON_EVERY_PROCESSOR):
    """Runs name -> line in `folder`; a line may read the outputs of those that read none. Returns name -> what it said, of those that failed."""
    (folder / "out").mkdir()

    def run(name):
        words = [str(command), *words_of(name, lines[name], threads)]
        result = subprocess.run(words, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
        return None if result.returncode == 0 else f"status {result.returncode}: {result.stderr.strip()}"

    failures = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for reads_outputs in (False, True):
            names = [name for name, line in lines.items() if ("out/" in line) == reads_outputs]
            failures |= {name: said for name, said in zip(names, pool.map(run, names), strict=True) if said is not None}
    return failures


def hash_of_file(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hash_of_tensors(path):
    """Of a safetensors file: all of its tensors and where they are, and what the header says of quantized layers, but no other metadata.
    Of another file: all."""
    if path.suffix != ".safetensors":
        return hash_of_file(path)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    digest = hashlib.sha256(metadata.get("_quantization_metadata", "").encode())
    for name, tensor in sorted(header.items()):
        begin, end = tensor["data_offsets"]
        digest.update(json.dumps([name, tensor["dtype"], tensor["shape"], begin, end]).encode())
        digest.update(data[8 + length + begin : 8 + length + end])
    return digest.hexdigest()


def hashes_of(folder, names, hash_of=hash_of_tensors):
    """Of those outputs that there are."""
    paths = {name: folder / output_of(name) for name in names}
    return {name: hash_of(path) for name, path in paths.items() if path.exists()}
