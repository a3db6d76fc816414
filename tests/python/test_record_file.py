"""The file is complete or absent, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import nn

import qmill.recording._writer as writer
from qmill.errors import FileError, InputError, UsageError
from qmill.recording import Recording, record
from record_support import RecordCase

_CHILD = """
import os, signal, sys, resource
import torch
import qmill.recording._writer as writer
from qmill.recording import record
path, how = sys.argv[1:]
torch.set_num_threads(1)
if how == "kill":
    write, count = writer._write_entry, 0
    def stop(file, entry):
        global count
        write(file, entry)
        file.flush()
        count += 1
        if count == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    writer._write_entry = stop
model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(4)))
recording = record(model, path)
recording.start()
with torch.no_grad():
    model(torch.randn(500, 64))
if how == "full":
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        recording.finish()
    except OSError as error:
        print(type(error).__name__, error)
        print(sorted(os.listdir(os.path.dirname(path))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print(recording.finish().rows)
"""


class Writing(RecordCase):
    def setUp(self) -> None:
        super().setUp()
        self.model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))

    def run_child(self, how: str) -> subprocess.CompletedProcess[str]:
        packages = str(Path(writer.__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": packages}
        command = [sys.executable, "-c", _CHILD, str(self.path), how]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    def test_the_bytes_are_a_safetensors_file(self) -> None:
        """Against the format itself: size, padded JSON, offsets without gaps, nothing behind the last tensor."""
        with torch.no_grad(), record(self.model, self.path):
            self.model(torch.randn(5, 4))
        data = self.path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        self.assertEqual(size % 8, 0)
        header = json.loads(data[8 : 8 + size])
        self.assertTrue(all(isinstance(value, str) for value in header.pop("__metadata__").values()))
        end = 0
        for name, entry in header.items():
            self.assertEqual(entry["dtype"], "BF16", name)
            self.assertEqual(entry["shape"], [5, 4])
            self.assertEqual(entry["data_offsets"], [end, end + 40])
            end += 40
        self.assertEqual(len(data), 8 + size + end)

    def test_killed_while_writing(self) -> None:
        child = self.run_child("kill")
        self.assertEqual(child.returncode, -signal.SIGKILL, child.stderr)
        self.assertFalse(self.path.exists())
        left = list(self.folder.iterdir())
        self.assertEqual([item.suffix for item in left], [".part"], "the test killed it in the middle")
        self.assertGreater(left[0].stat().st_size, 1000)

    def test_disk_full_then_finished(self) -> None:
        child = self.run_child("full")
        self.assertEqual(child.returncode, 0, child.stderr)
        error, listing, rows = child.stdout.strip().splitlines()
        self.assertIn("FileError cannot write", error)
        self.assertIn("File too large", error)
        self.assertEqual(listing, "[]")
        self.assertEqual(rows, "{'0': 500, '1': 500, '2': 500, '3': 500}")
        self.assertEqual(len(self.file().keys()), 4)

    def test_interrupted_while_writing(self) -> None:
        for failure in (KeyboardInterrupt, MemoryError):
            with mock.patch("qmill.recording._writer.os.fsync", side_effect=failure), self.assertRaises(failure):
                with torch.no_grad(), record(self.model, self.path):
                    self.model(torch.randn(5, 4))
            self.assert_nothing_left()

    def test_an_exception_inside_leaves_nothing_and_takes_the_hooks_away(self) -> None:
        recording = Recording(self.model, self.path)
        with self.assertRaises(KeyboardInterrupt), torch.no_grad(), recording:
            self.model(torch.randn(5, 4))
            raise KeyboardInterrupt
        self.assert_nothing_left()
        self.assertFalse(self.model[0]._forward_pre_hooks)
        self.assertEqual(recording.account.rows, {"0": 5, "1": 5})
        recording.finish()
        self.assertEqual(self.file().shape("1.input"), (5, 4))

    def test_an_interruption_inside_a_hook_makes_the_rows_useless(self) -> None:
        recording = Recording(self.model, self.path)
        with self.assertRaises(KeyboardInterrupt), torch.no_grad(), recording:
            self.model(torch.randn(5, 4))
            with mock.patch("qmill.recording._reservoir.Reservoir._replace", side_effect=KeyboardInterrupt):
                self.model(torch.randn(5, 4))
        with self.assertRaisesRegex(InputError, "interrupted while it was recorded"):
            recording.finish()
        self.assert_nothing_left()

    def test_an_existing_file_is_refused_before_the_model_runs(self) -> None:
        self.path.write_bytes(b"precious")
        with self.assertRaisesRegex(FileError, "exists: choose another name, or pass overwrite=True or append=True"):
            record(self.model, self.path)
        self.assertEqual(self.path.read_bytes(), b"precious")
        with torch.no_grad(), record(self.model, self.path, overwrite=True):
            self.model(torch.randn(5, 4))
            self.assertEqual(self.path.read_bytes(), b"precious")
        self.assertEqual(self.file().shape("0.input"), (5, 4))

    def test_a_file_that_appears_meanwhile_is_kept(self) -> None:
        recording = Recording(self.model, self.path)
        recording.start()
        self.model(torch.randn(5, 4))
        self.path.write_bytes(b"precious")
        with self.assertRaisesRegex(FileError, "exists"):
            recording.finish()
        self.assertEqual(self.path.read_bytes(), b"precious")
        check = recording._destination.check
        with mock.patch.object(recording._destination, "check"), self.assertRaisesRegex(FileError, "exists"):
            recording.finish()  # it appears after the last look
        self.assertEqual(self.path.read_bytes(), b"precious")
        self.path.unlink()
        check()
        recording.finish()
        self.assertEqual([item.name for item in self.folder.iterdir()], [self.path.name])

    def test_paths_that_cannot_be_are_refused_at_once(self) -> None:
        with self.assertRaisesRegex(FileError, "folder of .* does not exist"):
            record(self.model, self.folder / "none" / "rows.safetensors")
        self.path.write_bytes(b"a model")
        with self.assertRaisesRegex(UsageError, "is the checkpoint"):
            record(self.model, self.path, checkpoint=self.path, overwrite=True)

    def test_no_file_of_the_checkpoint_is_replaced(self) -> None:
        folder = self.folder / "shards"
        folder.mkdir()
        weights = {f"{name}.weight": layer.weight.detach().clone() for name, layer in self.model.named_children()}
        names = [f"model-{number}-of-{len(weights)}.safetensors" for number in range(1, len(weights) + 1)]
        for name, (key, weight) in zip(names, weights.items(), strict=True):
            save_file({key: weight}, folder / name)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": dict(zip(weights, names, strict=True))}))
        link = self.folder / "link.safetensors"
        link.symlink_to(folder / names[0])
        before = {path: path.read_bytes() for path in folder.iterdir()}
        files = [*(folder / name for name in names), link]
        for checkpoint, paths in ((folder, files), (index, [*files, index])):
            for path in paths:
                for choice in ("overwrite", "append"):
                    with (
                        self.subTest(checkpoint=checkpoint.name, path=path.name, choice=choice),
                        self.assertRaisesRegex(UsageError, "is the checkpoint or one of its files"),
                    ):
                        record(self.model, path, checkpoint=checkpoint, **{choice: True})
        self.assertEqual({path: path.read_bytes() for path in folder.iterdir()}, before)
        record(self.model, self.path, checkpoint=folder)

    def test_arguments_of_another_type(self) -> None:
        for options, found in [
            ({"rows": 100.0}, "rows is 100.0; expected an integer"),
            ({"rows": True}, "rows is True; expected an integer"),
            ({"rows": 0}, "rows is 0"),
            ({"seed": "x"}, "seed is 'x'; expected an integer"),
            ({"seed": 2**63}, "seed is 9223372036854775808; expected an integer of 64 bits"),
            ({"budget": None}, "budget is None; expected an integer"),
            ({"budget": 0}, "budget is 0: pass a number of bytes, at least 1"),
            ({"budget": -5}, "budget is -5"),
            ({"budget": 1e9}, "budget is 1000000000.0; expected an integer"),
            ({"overwrite": 1}, "overwrite is 1; expected True or False"),
            ({"share": "no"}, "share is 'no'; expected True or False"),
        ]:
            with self.subTest(options=options), self.assertRaisesRegex(UsageError, f"^{found}"):
                record(self.model, self.path, **options)  # type: ignore[arg-type]
        for model, found in ((None, "None"), (nn.Linear, "of type type"), ({}, "of type dict"), (len, "of type")):
            with self.assertRaisesRegex(UsageError, f"^model is {found}.*; expected a torch.nn.Module"):
                record(model, self.path)  # type: ignore[arg-type]
        self.assert_nothing_left()

    def test_a_model_that_never_ran_writes_nothing(self) -> None:
        with self.assertRaisesRegex(InputError, "no layer was called; run the model"), record(self.model, self.path):
            pass
        self.assert_nothing_left()

    def test_calls_without_rows_are_not_taken_for_no_calls(self) -> None:
        for x, found in [
            (torch.full((3, 4), float("nan")), "2 layers had only rows with values that are not finite ('0', '1')"),
            (torch.zeros(0, 4), "2 layers had only inputs with 0 rows ('0', '1')"),
            (torch.zeros(3, 4, device="meta"), "layer '0' had an input without values in rows (meta"),
            ([1.0], "layer '0' had no tensor as the first argument"),
        ]:
            model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
            if isinstance(x, torch.Tensor):
                model.to(x.device)
            recording = Recording(model, self.path)
            recording.start()
            try:
                model(x)
            except TypeError:
                self.assertIsInstance(x, list)
            with self.subTest(found=found), self.assertRaises(InputError) as caught:
                recording.finish()
            self.assertIn(f"layers were called, but {found}", str(caught.exception))
            self.assertNotIn("no layer was called", str(caught.exception))
        self.assert_nothing_left()

    def test_weights_that_are_used_without_a_call_are_in_the_message(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4))
        with self.assertRaisesRegex(InputError, "without a call of its module, as by F.linear, is not recorded"):
            with record(model, self.path):
                nn.functional.linear(torch.randn(3, 4), model[0].weight)

    def test_starts_add_up_and_pauses_record_nothing(self) -> None:
        recording = Recording(self.model, self.path)
        for count in (3, 4):
            recording.start()
            with self.assertRaises(UsageError):
                recording.start()
            self.model(torch.randn(count, 4))
            recording.pause()
            self.assertFalse(self.model[0]._forward_pre_hooks)
            self.model(torch.randn(100, 4))
        self.assertEqual(recording.account.rows_seen, {"0": 7, "1": 7})
        self.assertFalse(recording.account.finished)
        recording.start()
        account = recording.finish()
        self.assertFalse(self.model[0]._forward_pre_hooks)
        self.assertEqual(account.rows_seen, {"0": 7, "1": 7})
        self.assertEqual(recording.account, account)
        for method in (recording.start, recording.finish):
            with self.assertRaisesRegex(UsageError, "finished"):
                method()


if __name__ == "__main__":
    unittest.main()
