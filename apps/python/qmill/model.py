"""Tensors of a model file by name, for any file that qmill reads."""

from __future__ import annotations

import difflib
import os
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from qmill._native import call, call_at_once
from qmill._values import path_text, path_texts, text_value
from qmill.errors import UsageError


class Model:
    """An open model: .safetensors, an index.json, a folder of shards, .gguf, .pt. [any-thread, one at a time]

    Tensors are read when they are asked for. Close it, or use it in a `with` statement. Copies and pickles, as for a
    process of its own, open the path again.
    """

    def __init__(self, path: str | os.PathLike[str], *, plugin_dirs: Sequence[str | os.PathLike[str]] = ()) -> None:
        """Reads the header. Raises QmillError that names the file."""
        self.path = path_text("path", path)
        self._again = (os.path.abspath(self.path), path_texts("plugin_dirs", plugin_dirs))
        reply = call("open_model", {"path": self.path, "plugin_dirs": self._again[1]}).json
        self._handle: int | None = reply["handle"]
        self._finalizer = weakref.finalize(self, _close, reply["handle"])
        self._finalizer.atexit = False  # the process gives everything back
        self.files = [Path(file) for file in reply["files"]]
        """All files that the tensors are in."""
        self._tensors: dict[str, Any] = {tensor["name"]: tensor for tensor in reply["tensors"]}
        self.metadata: dict[str, str] = reply["metadata"]

    def keys(self) -> list[str]:
        """The names of all tensors, in the order of the file."""
        return list(self._open_tensors())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self._open_tensors()

    def __len__(self) -> int:
        return len(self._open_tensors())

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else f"{len(self)} tensors"
        return f"<qmill.Model '{self.path}': {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        self._open_tensors()
        return _open_again, self._again

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return tuple(self._info(key)["shape"])

    def dtype(self, key: str) -> str:
        """The element type of a tensor by its safetensors name, such as "BF16"."""
        return str(self._info(key)["dtype"])

    def tensor(self, key: str) -> torch.Tensor:
        """A tensor, on the CPU, in its own type. Raises UnsupportedError for types that torch lacks."""
        self._info(key)
        return call("read_model_tensor", {"handle": self._handle or 0, "name": key}).tensors[0]

    def close(self) -> None:
        """Gives back the file. A second call does nothing."""
        self._finalizer()
        self._handle = None

    def _open_tensors(self) -> dict[str, Any]:
        if self._handle is None:
            raise UsageError(f"'{self.path}' is closed; open it again")
        return self._tensors

    def _info(self, key: str) -> Any:
        if text_value("key", key) not in self._open_tensors():
            near = difflib.get_close_matches(key, self._tensors, n=1)
            advice = f"; did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"'{self.path}' has no tensor '{key}'{advice}")
        return self._tensors[key]

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_again(path: str, plugin_dirs: list[str]) -> Model:
    return Model(path, plugin_dirs=plugin_dirs)


def _close(handle: int) -> None:
    call_at_once("close_model", {"handle": handle})
