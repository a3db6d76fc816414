"""Several processes make one output (docs/many-machines.md), under mpirun on this machine."""

import os
import signal
import subprocess
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from support import QMILL, TempFolder

QMILL_MPI = str(Path(QMILL).parent / "qmill-mpi")
MPIRUN = os.environ["QMILL_MPIRUN"]
# In containers, tests run as root; and these have more ranks than the machine has processors.
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
               "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}


class Ranks(TempFolder):
    def setUp(self):
        super().setUp()
        torch.manual_seed(5)
        self.model, self.rows, self.out = (self.folder / name for name in ("model.safetensors", "rows.safetensors", "out.safetensors"))
        shapes = {f"blocks.{i}.{name}": (64 + 8 * i, 512) for i in range(4) for name in ("q", "k", "v", "mlp")}
        save_file({f"{name}.weight": torch.randn(shape) / 16 for name, shape in shapes.items()} | {"norm.weight": torch.randn(512)}, self.model)
        shared = {i: torch.randn(300, 512) @ torch.randn(512, 512) for i in range(4)}  # the inputs of q, k and v
        save_file({f"{name}.input": shared[int(name[7])].clone() if name[-3:] != "mlp" else torch.randn(300, 512) for name in shapes}, self.rows)

    def words(self, *more, output=None):
        return ["-i", str(self.model), "-o", str(output or self.out), "--filter", "none", "--threads", "1", *map(str, more)]

    def start(self, ranks, *words):
        return subprocess.Popen([MPIRUN, "-n", str(ranks), "--bind-to", "none", QMILL_MPI, "convert", *words], env=ENVIRONMENT,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run_ranks(self, ranks, *words, status=0):
        process = self.start(ranks, *words)
        output, error = process.communicate()
        self.assertEqual(process.returncode, status, error)
        return output, error

    def one(self, *more):
        expected = self.folder / "expected.safetensors"
        subprocess.run([QMILL, *self.words(*more, "--overwrite", output=expected)], check=True, capture_output=True)
        return expected.read_bytes()

    def beside(self):
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("out"))


class SameBytes(Ranks):
    def check(self, ranks, *more):
        expected = self.one(*more)
        output, _ = self.run_ranks(ranks, *self.words(*more))
        self.assertEqual(self.out.read_bytes(), expected)
        self.assertEqual(self.beside(), ["out.safetensors"])
        self.assertEqual(output.count("quantized  16 "), 1)  # one of them speaks
        self.out.unlink()

    def test_rtn(self):
        for ranks in (2, 4):
            self.check(ranks)

    def test_gptq_with_inputs_that_layers_share(self):
        for ranks in (2, 4):
            self.check(ranks, "--optimizer", "gptq", "--calibration-data", self.rows)

    def test_shards(self):
        words = ("--max-shard-size=1MB", "--fp16", "--keep-dtype=f32")
        subprocess.run([QMILL, *self.words(*words)], check=True, capture_output=True)
        expected = {name: (self.folder / name).read_bytes() for name in self.beside()}
        self.assertGreater(len(expected), 2)
        for name in expected:
            (self.folder / name).unlink()
        self.run_ranks(2, *self.words(*words))
        self.assertEqual({name: (self.folder / name).read_bytes() for name in self.beside()}, expected)


class Endings(Ranks):
    SLOW = ("--optimizer", "adamw", "--num-iter", "200")

    def test_a_rank_that_is_killed_leaves_a_part_to_go_on_with(self):
        expected = self.one(*self.SLOW)
        process = self.start(3, *self.words(*self.SLOW))
        journal = self.folder / "out.safetensors.qmill-journal"
        while not journal.exists() and process.poll() is None:
            time.sleep(0.02)
        self.assertTrue(journal.exists(), "it was finished before anything was noted")
        ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        self.assertEqual(len(ranks), 3)
        os.kill(int(ranks[1]), signal.SIGKILL)
        process.communicate()
        self.assertNotEqual(process.returncode, 0)
        self.assertEqual(self.beside(), ["out.safetensors.qmill-journal", "out.safetensors.qmill-part"])
        _, error = self.run_ranks(2, *self.words(*self.SLOW, "--resume"))
        self.assertIn("resumed: ", error)
        self.assertEqual(self.out.read_bytes(), expected)
        self.assertEqual(self.beside(), ["out.safetensors"])

    def test_ranks_with_different_options_are_told_which(self):
        process = subprocess.run([MPIRUN, "--bind-to", "none", "-n", "1", QMILL_MPI, *self.words(), ":", "-n", "1", QMILL_MPI, *self.words("--int8", "--convrot=off")],
                                 env=ENVIRONMENT, capture_output=True, text=True)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("rank 1: it would make another output", process.stderr)
        self.assertEqual(self.beside(), [])

    def test_an_error_of_all_is_said_once(self):
        _, error = self.run_ranks(3, *self.words("--optimizer=none-such"), status=2)
        self.assertEqual(error.count("qmill: error:"), 1)
        self.assertIn("none-such", error)
        self.assertEqual(self.beside(), [])

    def test_other_commands_are_not_for_several_processes(self):
        process = subprocess.run([MPIRUN, "-n", "2", QMILL_MPI, "inspect", self.model], env=ENVIRONMENT, capture_output=True, text=True)
        self.assertEqual(process.returncode, 2)
        self.assertIn("'inspect' is not for several processes, expected convert", process.stderr)

    def test_the_report_is_of_the_whole(self):
        self.run_ranks(3, *self.words("--report", self.folder / "out.json"))
        self.assertEqual((self.folder / "out.json").read_text().count('"sqnr_db"'), 16)
