"""What a recording may replace: regular files, also through a link; never a pipe, a socket or a folder."""

from __future__ import annotations

import os
import socket
import stat
import unittest
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from qmill.errors import FileError, UsageError
from qmill.recording import Recording, record
from record_support import RecordCase


class Destinations(RecordCase):
    def setUp(self) -> None:
        super().setUp()
        self.model = nn.Sequential(nn.Linear(4, 4))

    def recorded(self, path: Path, **options: bool) -> None:
        with torch.no_grad(), record(self.model, path, **options):  # type: ignore[arg-type]
            self.model(torch.randn(5, 4))

    def test_what_is_no_regular_file_is_refused_at_once_and_stays(self) -> None:
        pipe, folder, link = (self.folder / name for name in ("pipe", "folder", "link"))
        os.mkfifo(pipe)
        folder.mkdir()
        link.symlink_to(pipe)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(self.folder / "socket"))
        cases = [(pipe, "not a regular file"), (self.folder / "socket", "not a regular file"),
                 (link, "not a regular file"), (folder, "is a folder")]  # fmt: skip
        for path, found in cases:
            before = path.stat()
            for options in ({}, {"overwrite": True}, {"append": True}):
                with self.subTest(path=path.name, **options), self.assertRaisesRegex(UsageError, found):
                    record(self.model, path, **options)
            self.assertEqual((path.stat().st_ino, path.stat().st_mode), (before.st_ino, before.st_mode))
        self.assertTrue(link.is_symlink())

    def test_a_pipe_that_appears_meanwhile_stays(self) -> None:
        recording = Recording(self.model, self.path, overwrite=True)
        recording.start()
        self.model(torch.randn(5, 4))
        os.mkfifo(self.path)
        with self.assertRaisesRegex(UsageError, "not a regular file"):
            recording.finish()
        self.assertTrue(stat.S_ISFIFO(self.path.stat().st_mode))
        self.assertEqual([item.name for item in self.folder.iterdir()], [self.path.name])

    def test_a_link_to_a_file_is_followed(self) -> None:
        other = self.folder / "other"
        other.mkdir()
        target = other / "target.safetensors"
        target.write_bytes(b"old")
        self.path.symlink_to(target)
        self.recorded(self.path, overwrite=True)
        self.assertTrue(self.path.is_symlink())
        self.assertEqual(self.file(target).shape("0.input"), (5, 4))
        self.recorded(self.path, append=True)
        self.assertTrue(self.path.is_symlink())
        self.assertEqual(self.file(target).shape("0.input"), (10, 4))
        self.assertEqual([item.name for item in other.iterdir()], [target.name])

    def test_a_link_to_nothing_is_refused(self) -> None:
        self.path.symlink_to(self.folder / "none.safetensors")
        loop = self.folder / "loop.safetensors"
        loop.symlink_to(loop)
        for options in ({}, {"overwrite": True}, {"append": True}):
            with self.assertRaisesRegex(UsageError, "is a link to '.*none.safetensors', which does not exist"):
                record(self.model, self.path, **options)
            with self.assertRaisesRegex(FileError, "cannot look at '.*loop.safetensors'"):
                record(self.model, loop, **options)
        self.assertTrue(self.path.is_symlink() and loop.is_symlink())

    def test_a_replaced_file_keeps_its_permissions(self) -> None:
        self.path.write_bytes(b"old")
        for mode in (0o600, 0o664):
            self.path.chmod(mode)
            self.recorded(self.path, overwrite=True)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), mode)
            self.recorded(self.path, append=True)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), mode)

    def test_a_folder_that_cannot_be_written_is_refused_at_once(self) -> None:
        # Also for root, who may write everywhere.
        with mock.patch("qmill.recording._destination.os.access", return_value=False) as access:
            with self.assertRaisesRegex(FileError, f"no file can be written to the folder '{self.folder}'"):
                record(self.model, self.path)
        access.assert_called_once_with(self.folder.resolve(), os.W_OK | os.X_OK)

    def test_endings_of_other_kinds_of_files_are_refused(self) -> None:
        for ending in (".gguf", ".pt", ".bin", ".ckpt", ".json", ".txt", ".GGUF"):
            with self.assertRaisesRegex(UsageError, f"ends in '{ending}'.*choose a name that ends in .safetensors"):
                record(self.model, self.folder / f"rows{ending}")
        self.recorded(self.folder / "flux.dev")


if __name__ == "__main__":
    unittest.main()
