"""The checkpoint that a recording is about: its layers, and its identity. All access to qmill's reader is here."""

from __future__ import annotations

import importlib
import json
import os
from contextlib import AbstractContextManager
from typing import Protocol, cast

from torch import Tensor


class Checkpoint(Protocol):
    """What the recorder needs of an open model."""

    @property
    def metadata(self) -> dict[str, str]:
        """The text pairs of the file's header."""

    def keys(self) -> list[str]:
        """Names of the tensors."""

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor."""

    def dtype(self, key: str) -> str:
        """Type of a tensor, such as BF16."""

    def tensor(self, key: str) -> Tensor:
        """A tensor, on the CPU."""


def open_checkpoint(path: str | os.PathLike[str]) -> AbstractContextManager[Checkpoint]:
    """Opens any model that qmill reads."""
    qmill = importlib.import_module("qmill")
    return cast("AbstractContextManager[Checkpoint]", qmill.open_model(os.fspath(path)))


def identity_of(path: str | os.PathLike[str]) -> str:
    """JSON text that is the same for the same model: a digest of names, types, shapes and samples of the data."""
    native = importlib.import_module("qmill._native")
    reply = native.call("model_identity", {"path": os.fspath(path)})
    return json.dumps(reply.json["identity"], separators=(",", ":"), sort_keys=True)


def layer_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """The layers of a checkpoint, named without `.weight`, with the shapes [N, K] of their weights."""
    shapes = {}
    for key in checkpoint.keys():
        shape = checkpoint.shape(key)
        if key.endswith(".weight") and len(shape) == 2:
            shapes[key.removesuffix(".weight")] = (shape[0], shape[1])
    return shapes
