"""A recording that lasts over several runs of a graph. Every run that ends well is added to the file of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .host import qmill


COMPILED = (
    "compiled with torch.compile, so its layers cannot be recorded: bypass the node that compiles the model "
    "(TorchCompileModel) while you record"
)

_files_in_runs: set[Path] = set()  # of all sessions: two that write one file would lose rows of each other


@dataclass(frozen=True)
class Settings:
    """What the widgets of a record node say.

    file: where the rows are stored. checkpoint: the file that will be converted. rows: the largest number per layer.
    budget: the largest size of all rows, bytes. append: whether rows are added to a file that exists.
    """

    file: Path
    checkpoint: Path
    rows: int
    budget: int
    append: bool


class Session:
    """Records the runs of one record node.

    A *run* is one sampling, or one encoding of a text. Within it, every *call* of the model is recorded. The hooks of
    the recording are on the model during a call only, so nothing else that uses the same model is recorded. The file
    is written when the run is complete. A run that is interrupted or fails leaves the file as it was.

    Not thread-safe: ComfyUI runs one node at a time.
    """

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        """`announce` is called with `status` after each run."""
        self.settings = settings
        self.status = f"nothing recorded yet; rows go to '{settings.file}'"
        self._announce = announce
        self._in_run = False
        self._in_call = False
        self._recording: Any = None
        self._model: nn.Module | None = None
        self._has_written = False

    @contextmanager
    def run(self) -> Iterator[None]:
        """The body of the `with` statement is one run. A run inside a run belongs to the outer one.

        Raises FileExistsError before the run if the file exists and may not be added to, and what qmill.Recording
        raises when it writes.
        """
        if self._in_run:
            yield
            return
        self._check_destination()
        self._in_run = True
        _files_in_runs.add(self.settings.file)
        try:
            yield
            self._publish()
        finally:
            self._recording = None
            self._model = None
            _files_in_runs.discard(self.settings.file)
            self._in_run = False

    @contextmanager
    def call(self, model: nn.Module, stratum: float | None = None) -> Iterator[None]:
        """The body of the `with` statement calls `model`, whose layers are named as in the checkpoint.

        stratum: the part of the process that the rows are of, such as the noise level. Outside of a run, and inside
        another call, nothing is done. Raises ValueError if the model is compiled, and what qmill.Recording raises, such
        as qmill.errors.UnsupportedError if the model is quantized already.
        """
        if not self._in_run or self._in_call:
            yield
            return
        recording = self._recording_of(model)
        if stratum is not None:
            recording.stratum = stratum
        self._in_call = True
        try:
            recording.start()
            yield
        finally:
            recording.pause()
            self._in_call = False

    def _check_destination(self) -> None:
        file = self.settings.file
        if file in _files_in_runs:
            raise RuntimeError(
                f"two record nodes write '{file}' in one run: choose another rows_file in one of them"
            )
        if file.exists() and not self.settings.append and not self._has_written:
            raise FileExistsError(
                f"'{file}' exists, and append is off: switch append on to add rows to it, or choose another rows_file"
            )

    def _recording_of(self, model: nn.Module) -> Any:
        if self._recording is None:
            _refuse_compiled(model)
            settings = self.settings
            self._recording = qmill().Recording(
                model,
                settings.file,
                checkpoint=settings.checkpoint,
                rows=settings.rows,
                budget=settings.budget,
                append=settings.file.exists(),
            )
            self._model = model
        elif self._model is not model:
            raise RuntimeError(
                f"two models are sampled in one run of the recording to '{self.settings.file}': "
                f"use one record node, with a file of its own, for each"
            )
        return self._recording

    def _publish(self) -> None:
        if self._recording is None:
            raise RuntimeError(
                f"nothing was recorded to '{self.settings.file}': the model was not called in this run. "
                f"Connect the model of the record node to the sampler, and set steps to 1 or more"
            )
        self._recording.finish()
        self._has_written = True
        self.status = status_line(self._recording.account)
        self._announce(self.status)


def status_line(account: Any) -> str:
    """One line about a qmill.recording.RecordingAccount: layers, rows, bytes, and what matched nothing."""
    rows = account.rows.values()
    parts = [
        f"{account.layers} layers with {min(rows, default=0)} to {max(rows, default=0)} rows",
        f"{account.bytes / 1e6:.1f} MB in '{account.path}'",
    ]
    for count, what in (
        (len(account.layers_without_input), "layers were not called"),
        (len(account.modules_not_in_checkpoint), "layers of the model are not in the checkpoint"),
        (len(account.checkpoint_layers_without_module), "layers of the checkpoint are not in the model"),
        (len(account.non_finite_rows), "layers have rows that are not finite, which were left out"),
        (len(account.skipped), "layers have inputs that cannot be recorded"),
    ):
        if count:
            parts.append(f"{count} {what}")
    return "; ".join(parts)


def _refuse_compiled(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(f"module '{name}' of the model is {COMPILED}")
