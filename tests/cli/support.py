"""Running the command, and reading its files with code that is not qmill's."""

import contextlib
import ctypes
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

QMILL = os.environ["QMILL"]
SOURCE = Path(os.environ["QMILL_SOURCE"])
BUILD = Path(os.environ["QMILL_BUILD"])
ABACUS = SOURCE / "tests" / "data" / "abacus" / "abacus.safetensors"


CONVERTS = {"convert", "plan", "batch"}
NOT_CONVERSIONS = {"edit", "dequantize", "verify", "inspect", "--edit-quant"}


def with_all_layers(words):
    """Most tests are about something else than the default filter: a conversion has all of its layers unless it chooses."""
    flags = {word.split("=")[0].replace("_", "-") for word in words}
    converts = (words[:1] and words[0] in CONVERTS or {"-i", "--input"} & flags) and not NOT_CONVERSIONS & flags
    if not converts or {"--help", "-h", "--filter", "--plugin-dir"} & flags or filter_flags() & flags:
        return words
    return [*words, "--filter", "none"]


@functools.cache
def filter_flags():
    listed, _ = qmill("filters", "list", "--json", choose=list)
    return {"--" + entry["name"].replace("_", "-") for entry in json.loads(listed)}


def qmill(*words, status=0, env=None, cwd=None, choose=with_all_layers):
    """Runs the command and returns (stdout, stderr); fails when its exit status is another. `choose`: list, for the words as they are.

    The command runs in this process, which has loaded LibTorch already: that takes ten times as long as most runs.
    QMILL_TEST_PROCESSES=1 gives each run a process of its own, for sanitizers and debuggers.
    """
    run = in_own_process if os.environ.get("QMILL_TEST_PROCESSES") == "1" else in_this_process
    return checked(words, status, *run(choose(list(map(str, words))), env or {}, cwd))


def qmill_process(*words, status=0, env=None, cwd=None, choose=with_all_layers):
    """The same in a process of its own, always."""
    return checked(words, status, *in_own_process(choose(list(map(str, words))), env or {}, cwd))


def checked(words, expected, status, output, error):
    if status != expected:
        raise AssertionError(f"qmill {' '.join(map(str, words))}: status {status}, expected {expected}\n{output}{error}")
    return output, error


def in_own_process(words, env, cwd):
    result = subprocess.run([QMILL, *words], capture_output=True, text=True, env={**os.environ, **env}, cwd=cwd)
    return result.returncode, result.stdout, result.stderr


@functools.cache
def library():
    return ctypes.CDLL(os.environ["QMILL_IN_PROCESS"])


def in_this_process(words, env, cwd):
    arguments = [os.fsencode(word) for word in words]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
        with redirected(1, output), redirected(2, error), environment(env), folder(cwd):
            status = library().qmill_run(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
        return status, text_of(output), text_of(error)


@contextlib.contextmanager
def redirected(descriptor, file):
    """What C and Python write to this descriptor goes to the file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(descriptor)
    os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


def text_of(file):
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n").replace("\r", "\n")


@contextlib.contextmanager
def environment(changes):
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)  # also what getenv() says
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def folder(path):
    before = os.getcwd()
    if path is not None:
        os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def qmill_json(*words, run=qmill):
    return json.loads(run(*words, "--json")[0])


class TempFolder(unittest.TestCase):
    """A test with a folder of its own at self.folder."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)

    def model(self, tensors, name="model.safetensors", metadata=None):
        path = self.folder / name
        save_file(tensors, path, metadata=metadata)
        return path

    def refused(self, *words, says=(), status=1, choose=with_all_layers):
        """The command ends with one line on stderr that says all this, nothing on stdout, and nothing left behind."""
        before = self.names()
        output, error = qmill(*words, status=status, choose=choose)
        self.assertEqual(len(error.strip().splitlines()), 1, error)
        self.assertEqual(output, "")
        for part in says:
            self.assertIn(part, error)
        self.assertEqual(self.names(), before, "something was left behind")

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())


def read(path):
    """(tensors, metadata) as the safetensors package reads them."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def hadamard(group):
    """The regular Hadamard matrix of this order as F64, normalized."""
    h4 = torch.tensor([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=torch.float64) / 2
    h = torch.ones(1, 1, dtype=torch.float64)
    while h.shape[0] < group:
        h = torch.kron(h, h4)
    return h


def sylvester(order):
    """Sylvester's Hadamard matrix of this order as F64, normalized."""
    h2 = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64)
    h = torch.ones(1, 1, dtype=torch.float64)
    while h.shape[0] < order:
        h = torch.kron(h, h2)
    return h / math.sqrt(order)


def unpack_int4(packed):
    """Codes of two's complement nibbles, the low one first."""
    bytes_ = packed.to(torch.int64) % 256
    codes = torch.stack((bytes_ % 16, bytes_ // 16), -1).flatten(1)
    return torch.where(codes < 8, codes, codes - 16)


def decode(tensors, layer):
    """The weight of a layer in F64, by its marker: what a reader computes."""
    codes = tensors[f"{layer}.weight"].double()
    if f"{layer}.comfy_quant" in tensors:
        marker = json.loads(bytes(tensors[f"{layer}.comfy_quant"].tolist()))
        scale = tensors[f"{layer}.weight_scale"].double()
    elif f"{layer}.scale_weight" in tensors:
        marker, scale = {}, tensors[f"{layer}.scale_weight"].double()
    else:
        return codes  # F16
    if marker.get("format") in ("convrot_w4a4", "int4_rowwise"):
        codes = unpack_int4(tensors[f"{layer}.weight"]).double()
    if marker.get("format") == "hadamard_quip":
        rows, columns = marker["shape"]
        assert tensors[f"{layer}.hadamard_quip"].item() == 1
        height, width = tensors[f"{layer}.hadamard_size_out"].item(), tensors[f"{layer}.hadamard_size_in"].item()
        signs = tensors[f"{layer}.sign_row"].double(), tensors[f"{layer}.sign_col"].double()
        weight = sylvester(height) @ (codes * scale) @ sylvester(width)
        return (signs[0][:, None] * weight * signs[1])[:rows, :columns]
    if scale.dim() == 1:
        scale = scale[:, None]
    if scale.dim() == 2 and scale.shape[1] != 1 or scale.dim() == 2 and scale.shape[0] not in (1, codes.shape[0]):
        scale = scale.repeat_interleave(codes.shape[0] // scale.shape[0], 0).repeat_interleave(codes.shape[1] // scale.shape[1], 1)
    weight = codes * scale
    if marker.get("convrot") or marker.get("format") == "convrot_w4a4":
        group = marker["convrot_groupsize"]
        weight = (weight.reshape(-1, group) @ hadamard(group)).reshape(weight.shape)
    return weight


def sqnr_db(original, decoded):
    original = original.double()
    error = (original - decoded).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(original.square().mean().item() / error)
