"""Runs that are killed, and streams that fail."""

import os
import random
import resource
import signal
import subprocess
import time

import torch
from safetensors.torch import save_file

from support import QMILL, TempFolder, qmill_process


def close(*streams):
    def run():
        for stream in streams:
            os.close(stream)

    return run


class Runs(TempFolder):
    def setUp(self):
        super().setUp()
        torch.manual_seed(3)
        self.model = self.folder / "model.safetensors"
        save_file({f"blocks.{i}.w.weight": torch.randn(256, 512) / 16 for i in range(12)}, self.model)
        save_file({f"blocks.{i}.w.input": torch.randn(300, 512) @ torch.randn(512, 512) for i in range(12)}, self.folder / "rows.safetensors")
        self.output = self.folder / "out.safetensors"

    def words(self, *more, optimizer="learned_rounding"):
        slow = {"learned_rounding": ["--num-iter", "60"], "gptq": ["--calibration-data", str(self.folder / "rows.safetensors")], "rtn": []}
        return [QMILL, "-i", str(self.model), "-o", str(self.output), "--filter", "none", "--optimizer", optimizer, "--threads", "1",
                *slow[optimizer], *map(str, more)]

    def start(self, *words, **options):
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def expected(self, optimizer):
        done = subprocess.run(self.words(optimizer=optimizer), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.output.rename(self.folder / "expected.safetensors")
        return (self.folder / "expected.safetensors").read_bytes()

    def beside(self):
        known = {"model.safetensors", "rows.safetensors", "expected.safetensors"}
        return sorted(path.name for path in self.folder.iterdir() if path.name not in known)


class Kills(Runs):
    def test_killed_at_any_moment_it_can_be_resumed(self):
        chosen = random.Random(7)
        for optimizer in ("rtn", "gptq", "learned_rounding"):
            expected = self.expected(optimizer)
            start = time.monotonic()
            subprocess.run(self.words("--overwrite", optimizer=optimizer), capture_output=True)
            seconds = time.monotonic() - start
            self.output.unlink()
            for _ in range(int(os.environ.get("QMILL_TEST_KILLS", "3"))):
                process = self.start(*self.words("--resume", optimizer=optimizer))
                time.sleep(chosen.uniform(0, seconds))
                process.kill()
                process.communicate()
                self.assertIn(self.beside(), ([], ["out.safetensors"], ["out.safetensors.qmill-part"],
                                              ["out.safetensors.qmill-journal", "out.safetensors.qmill-part"],
                                              ["out.safetensors", "out.safetensors.qmill-journal"]))
                if self.output.exists():
                    self.assertEqual(self.output.read_bytes(), expected)
                    self.output.unlink()
            done = subprocess.run(self.words("--resume", optimizer=optimizer), capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.output.read_bytes(), expected)
            self.assertEqual(self.beside(), ["out.safetensors"])
            self.output.unlink()

    def test_an_old_file_stays_until_the_new_one_is_complete(self):
        self.output.write_text("old")
        process = self.start(*self.words("--overwrite"))
        while not (self.folder / "out.safetensors.qmill-part").exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        self.assertEqual(self.output.read_text(), "old")

    def test_ctrl_c_sigterm_and_a_closed_terminal_leave_what_is_finished(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = self.start(*self.words("--lr", "0.01"))
            for _ in range(300):
                journal = self.folder / "out.safetensors.qmill-journal"
                if journal.exists() or process.poll() is not None:
                    break
                time.sleep(0.05)
            process.send_signal(number)
            _, error = process.communicate()
            if process.returncode == 0:
                self.output.unlink()  # it was faster
                continue
            self.assertEqual(process.returncode, 130)
            self.assertIn("keeps what is finished: --resume goes on with it, or remove it", error)
            done = subprocess.run(self.words("--lr", "0.01", "--resume"), capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("resumed: ", done.stderr)
            self.output.unlink()

    def test_a_signal_that_is_ignored_stays_ignored(self):
        process = self.start(*self.words(), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))  # as nohup does
        time.sleep(0.5)
        process.send_signal(signal.SIGHUP)
        _, error = process.communicate()
        self.assertEqual(process.returncode, 0, error)
        self.assertEqual(self.beside(), ["out.safetensors"])

    def test_a_full_disk_leaves_what_is_finished(self):
        # As much as the first layers need: the limit of a file's size stands for a full disk.
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))
        process = self.start(*self.words("--overwrite"), preexec_fn=limit)
        _, error = process.communicate()
        self.assertEqual(process.returncode, 1, error)
        self.assertIn("File too large", error)
        self.assertFalse(self.output.exists())
        self.assertEqual(self.beside(), [])


class Streams(Runs):
    def test_closed_streams_do_not_become_the_output(self):
        expected = self.expected("rtn")
        for streams in ((0,), (2,), (0, 2), (0, 1, 2)):
            with self.subTest(closed=streams):
                done = subprocess.run(self.words("--verbose", "DEBUG", optimizer="rtn"), preexec_fn=close(*streams))
                self.assertEqual(done.returncode, 0)
                self.assertEqual(self.output.read_bytes(), expected)
                self.output.unlink()

    def test_messages_that_cannot_be_written_do_not_end_the_run(self):
        expected = self.expected("rtn")
        with open("/dev/full", "w") as full:
            done = subprocess.run(self.words("--verbose", "DEBUG", optimizer="rtn"), stderr=full, stdout=full)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(self.output.read_bytes(), expected)

    def test_results_that_cannot_be_written_are_a_failure(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([QMILL, "plan", self.model, "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn("cannot write the result to the standard output", done.stderr)
            done = subprocess.run(self.words("--json", optimizer="rtn"), stdout=full, stderr=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 1)
        self.assertTrue(self.output.exists())

    def test_a_reader_that_is_gone(self):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(self.words(optimizer="rtn"), stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        self.assertEqual(done.returncode, 0)
        self.assertIn("the file is complete", done.stderr)
        qmill_process("verify", self.output, status=0, choose=list)
