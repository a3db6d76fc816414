"""The file that a recording will be: whether it may be written, at the start and again at the end."""

from __future__ import annotations

import os
from pathlib import Path

from qmill._values import path_text
from qmill.errors import FileError, InputError, UsageError
from qmill.model import Model

from ._writer import already_there


class Destination:
    """A path, and what was there at the start."""

    def __init__(self, path: str | os.PathLike[str], checkpoint: Path | None, append: bool, overwrite: bool) -> None:
        if append and overwrite:
            raise UsageError("append=True and overwrite=True contradict each other: pass one of them")
        self.path = Path(path_text("path", path)).absolute()
        self._append = append
        self._overwrite = overwrite
        if not self.path.parent.is_dir():
            raise FileError(f"the folder of '{self.path}' does not exist: create it, or choose another path")
        if self.path.is_dir():
            raise FileError(f"'{self.path}' is a folder: name a file")
        if checkpoint is not None and self.path.exists() and self._is_of(checkpoint):
            raise UsageError(f"'{self.path}' is the checkpoint or one of its files: record to another path")
        self._before = self._state()
        self.check()

    @property
    def adds_to_file(self) -> bool:
        """Whether there is an earlier recording to add to."""
        return self._append and self._before is not None

    @property
    def replaces(self) -> bool:
        """Whether a file with this name is replaced."""
        return self._overwrite or self.adds_to_file

    def check(self) -> None:
        """Raises if the file must not be written (now)."""
        now = self._state()
        if self.adds_to_file and now != self._before:
            raise InputError(f"'{self.path}' was changed while its recording was added to: nothing was written")
        if now is not None and not self.replaces:
            raise already_there(self.path)

    def _is_of(self, checkpoint: Path) -> bool:
        """Whether the file, which exists, is one of those that the checkpoint consists of."""
        if checkpoint.exists() and self.path.samefile(checkpoint):
            return True
        with Model(checkpoint) as model:
            return any(file.exists() and self.path.samefile(file) for file in model.files)

    def _state(self) -> tuple[int, int, int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
