"""The file that a recording will be: whether it may be written, at the start and again at the end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from qmill._values import path_text
from qmill.errors import FileError, InputError, UsageError
from qmill.model import Model

from ._writer import already_there


_OTHER_KINDS = (".gguf", ".pt", ".pth", ".bin", ".ckpt", ".onnx", ".json", ".txt", ".npz", ".msgpack", ".h5")


class Destination:
    """A path, and what was there at the start."""

    def __init__(self, path: str | os.PathLike[str], checkpoint: Path | None, append: bool, overwrite: bool) -> None:
        if append and overwrite:
            raise UsageError("append=True and overwrite=True contradict each other: pass one of them")
        self.path = Path(path_text("path", path)).absolute()
        self._append = append
        self._overwrite = overwrite
        self._check_kind()
        self._check_folder()
        if checkpoint is not None and self.path.exists() and self._is_of(checkpoint):
            raise UsageError(f"'{self.path}' is the checkpoint or one of its files: record to another path")
        if self.path.suffix.lower() in _OTHER_KINDS:
            raise UsageError(
                f"'{self.path}' ends in '{self.path.suffix}', but what is written is a safetensors file: "
                "choose a name that ends in .safetensors"
            )
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

    @property
    def target(self) -> Path:
        """The file that is written: `path`, or the file that it is a link to."""
        return self.path.resolve()

    def check(self) -> None:
        """Raises if the file must not be written (now)."""
        self._check_kind()
        now = self._state()
        if self.adds_to_file and now != self._before:
            raise InputError(f"'{self.path}' was changed while its recording was added to: nothing was written")
        if now is not None and not self.replaces:
            raise already_there(self.path)

    def _check_kind(self) -> None:
        """Only a regular file is replaced, and only a link to one is followed. `convert` has the same rule."""
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            if self.path.is_symlink():
                raise UsageError(
                    f"'{self.path}' is a link to '{os.readlink(self.path)}', which does not exist: "
                    "name that file itself, or remove the link"
                ) from None
            return
        except OSError as error:
            raise FileError(f"cannot look at '{self.path}' ({error.strerror}): choose another path") from error
        if stat.S_ISDIR(mode):
            raise UsageError(f"'{self.path}' is a folder: name a file")
        if not stat.S_ISREG(mode):
            raise UsageError(f"'{self.path}' is not a regular file: choose another name")

    def _check_folder(self) -> None:
        folder = self.target.parent
        if not folder.is_dir():
            raise FileError(f"the folder of '{self.path}' does not exist: create it, or choose another path")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise FileError(
                f"no file can be written to the folder '{folder}': change its permissions, or choose another path"
            )

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
