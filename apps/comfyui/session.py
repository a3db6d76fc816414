"""A recording that lasts over several runs of a graph. Every run that ends well is added to the file of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import text
from .host import qmill

_files_in_runs: set[Path] = set()  # of all sessions: two that write one file would lose rows of each other


@dataclass(frozen=True)
class Settings:
    """What the widgets of a record node say.

    file: where the rows are stored. checkpoint: the file that will be converted; None if the node is switched off.
    rows: the largest number per input. budget: the largest size of the file, bytes. append: whether rows are added to a
    file that exists before the first run.
    """

    file: Path
    checkpoint: Path | None
    rows: int
    budget: int
    append: bool


class Session:
    """Records the runs of one record node.

    A *run* is one sampling, or one encoding of a text. Within it, every *call* of the model is recorded. The hooks of
    the recording are on the model during a call only, so nothing else that uses the same model is recorded. The file
    is written when the run is complete, and between runs no rows are in memory. A run that is interrupted or fails
    leaves the file as it was.

    Not thread-safe: ComfyUI runs one node at a time.
    """

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        """`announce` is called with `status` after each run."""
        self.settings = settings
        self.status = f"nothing is recorded by this node yet; rows go to '{settings.file}'"
        self._announce = announce
        self._in_run = False
        self._in_call = False
        self._recording: Any = None
        self._model: nn.Module | None = None
        self._has_written = False

    @contextmanager
    def run(self) -> Iterator[None]:
        """The body of the `with` statement is one run. A run inside a run belongs to the outer one.

        Raises RuntimeError if another session is in a run with the same file, or if the model was not called; and what
        qmill.Recording raises when it writes.
        """
        if self._in_run:
            yield
            return
        file = self.settings.file
        if file in _files_in_runs:
            raise RuntimeError(f"two record nodes write '{file}' in one run: choose another rows_file in one of them")
        self._in_run = True
        _files_in_runs.add(file)
        try:
            yield
            self._publish()
        finally:
            self._recording = None
            self._model = None
            _files_in_runs.discard(file)
            self._in_run = False

    @contextmanager
    def call(self, model: nn.Module, stratum: float | None = None) -> Iterator[None]:
        """The body of the `with` statement calls `model`, whose layers are named as in the checkpoint.

        stratum: the part of the process that the rows are of, such as the noise level. Outside of a run, and inside
        another call, nothing is done. Raises what qmill.Recording raises, such as qmill.UnsupportedError if the model
        is quantized already, and qmill.FileError if the file exists and append is off.
        """
        if not self._in_run or self._in_call:
            yield
            return
        recording = self._recording_of(model)
        recording.step = stratum
        self._in_call = True
        try:
            with torch.inference_mode(False):  # which ComfyUI runs nodes in; rows are changed later, outside of it
                recording.start()
            yield
        finally:
            recording.pause()
            self._in_call = False

    def _recording_of(self, model: nn.Module) -> Any:
        if self._recording is None:
            settings = self.settings
            self._recording = qmill().Recording(
                model,
                settings.file,
                checkpoint=settings.checkpoint,
                rows=settings.rows,
                budget=settings.budget,
                append=settings.append or self._has_written,
            )
            self._model = model
        elif self._model is not model:
            raise RuntimeError(
                f"two models are called in one run of the recording to '{self.settings.file}': "
                f"use one record node, with a file of its own, for each"
            )
        return self._recording

    def _publish(self) -> None:
        if self._recording is None:
            raise RuntimeError(
                f"nothing was recorded to '{self.settings.file}': the model was not called in this run. "
                f"Connect the model of the record node to the sampler, and set steps to 1 or more"
            )
        self.status = text.recording_line(self._recording.finish())
        self._has_written = True
        self._announce(self.status)
