"""What the tests of the Python packages share."""

import contextlib
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors.torch import save_file

SOURCE = Path(os.environ["QMILL_SOURCE"])
BUILD = Path(os.environ["QMILL_BUILD"])
COMMAND = os.environ["QMILL_COMMAND"]
ABACUS = SOURCE / "tests" / "data" / "abacus" / "abacus.safetensors"


def run_command(*words, status=0):
    """Runs the command in a process of its own; returns what it printed."""
    done = subprocess.run([COMMAND, *map(str, words)], capture_output=True, text=True)
    if done.returncode != status:
        raise AssertionError(f"{words}: status {done.returncode}, expected {status}\n{done.stdout}{done.stderr}")
    return done.stdout


class FolderTest(unittest.TestCase):
    """A test with a folder of its own and a small model in it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def model(self, name="model.safetensors", layers=3, rows=64, columns=256, seed=1):
        torch.manual_seed(seed)
        tensors = {f"blocks.{i}.proj.weight": torch.randn(rows, columns) / 16 for i in range(layers)}
        tensors |= {f"blocks.{i}.proj.bias": torch.randn(rows) for i in range(layers)}
        path = self.folder / name
        save_file(tensors, path)
        return path

    def recorded_rows(self, model_path, layers=3, columns=256, count=400, seed=2):
        generator = torch.Generator().manual_seed(seed)
        mix = torch.randn(columns, columns, generator=generator) / 16
        rows = {f"blocks.{i}.proj.input": torch.randn(count, columns, generator=generator) @ mix for i in range(layers)}
        path = model_path.with_name("rows.safetensors")
        save_file(rows, path)
        return path


@contextlib.contextmanager
def inside(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
