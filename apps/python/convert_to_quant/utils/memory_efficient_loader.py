"""Gives the tensors of a model by name."""

import os
from types import TracebackType
from typing import Dict, List, Optional, Tuple, Type, Union

import qmill
import torch
from qmill.errors import UnsupportedError, UsageError
from typing_extensions import Self


class UnifiedSafetensorsLoader:
    """Opens whatever qmill reads: a .safetensors file, an index, a folder of shards. One thread at a time.

    Every method raises UsageError after `close`, and for a key that the file lacks.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], low_memory: bool = False) -> None:
        """low_memory: tensors are read when they are asked for; otherwise all are read now.

        Raises FileError or InputError that names the file.
        """
        self._model: Optional[qmill.Model] = qmill.open_model(path)
        self._held: Dict[str, torch.Tensor] = {}
        if not low_memory:
            try:
                self._read_all(self._model)
            except BaseException:
                self.close()
                raise

    def keys(self) -> List[str]:
        """Names of all tensors, in the order of the file."""
        return list(self._open().keys())

    def metadata(self) -> Dict[str, str]:
        """The metadata of the header."""
        return dict(self._open().metadata)

    def get_shape(self, key: str) -> Tuple[int, ...]:
        """The shape of a tensor, which is not read."""
        return tuple(self._open().shape(key))

    def get_ndim(self, key: str) -> int:
        """The number of dimensions of a tensor, which is not read."""
        return len(self.get_shape(key))

    def get_tensor(self, key: str) -> torch.Tensor:
        """The tensor in its own type, on the CPU. Raises UnsupportedError for a type that torch lacks."""
        model = self._open()
        held = self._held.get(key)
        return model.tensor(key) if held is None else held

    def mark_processed(self, key: str) -> None:
        """Gives back the memory of a tensor that was read ahead; `get_tensor` would read it again."""
        self.get_shape(key)  # is there such a tensor?
        self._held.pop(key, None)

    def close(self) -> None:
        """Gives back files and memory. Tensors that were returned stay valid. A second call does nothing."""
        self._held.clear()
        if self._model is not None:
            self._model.close()
            self._model = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def _open(self) -> "qmill.Model":
        if self._model is None:
            raise UsageError("the loader is closed; make another one")
        return self._model

    def _read_all(self, model: "qmill.Model") -> None:
        for key in model.keys():
            try:
                self._held[key] = model.tensor(key)
            except UnsupportedError:
                continue  # get_tensor() says so: the others of the file can still be used
