"""A safetensors file that is written tensor by tensor, and appears under its name when it is complete."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from qmill.errors import FileError

_DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file. `blocks` gives its values in order, in contiguous parts on the CPU."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Callable[[], Iterator[Tensor]]

    @property
    def bytes(self) -> int:
        """Size of the values in bytes."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


def header_of(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of the file: the size of the JSON (8 bytes), and the JSON, padded to a multiple of 8 bytes."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for entry in entries:
        end = begin + entry.bytes
        header[entry.name] = {"dtype": _DTYPES[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_file(
    path: Path,
    entries: Sequence[Entry],
    metadata: Mapping[str, str],
    check_destination: Callable[[], None],
    replace: bool,
) -> int:
    """Writes a file beside `path` and gives it that name once it is on the disk. Returns its size in bytes.

    `check_destination` raises if the destination must not be written; it is called right before the file gets its name.
    Without `replace`, a file that appears there even later is kept where the file system has hard links. On any error
    the destination is as it was, and the part that was written is removed. A replaced file keeps its permissions.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with open(part, "xb") as file:
                header = header_of(entries, metadata)
                file.write(header)
                for entry in entries:
                    _write_entry(file, entry)
                file.flush()
                os.fsync(file.fileno())
            check_destination()
            _publish(part, path, replace)
        finally:
            part.unlink(missing_ok=True)
    except FileError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            f"cannot write '{path}': {reason}; the rows are still in memory: correct that and call finish() again"
        ) from error
    return len(header) + sum(entry.bytes for entry in entries)


def _write_entry(file: BinaryIO, entry: Entry) -> None:
    written = 0
    for block in entry.blocks():
        block = block.contiguous()
        size = block.numel() * block.element_size()
        if size:
            file.write((ctypes.c_char * size).from_address(block.data_ptr()))
        written += size
    if written != entry.bytes:
        raise AssertionError(f"entry {entry.name} has {written} bytes, its shape needs {entry.bytes}")


def _publish(part: Path, path: Path, replace: bool) -> None:
    if replace:
        if path.exists():
            part.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(part, path)
    else:
        try:
            os.link(part, path)
        except FileExistsError:
            raise already_there(path) from None
        except OSError:
            # No hard links here, as on exFAT. The check was made a moment ago.
            os.replace(part, path)
    _sync_folder(path.parent)


def already_there(path: Path) -> FileError:
    """The error about a destination that exists."""
    return FileError(f"'{path}' exists: choose another name, or pass overwrite=True or append=True")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open a folder for this.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
