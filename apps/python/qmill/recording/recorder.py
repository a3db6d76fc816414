"""`qmill.record`: rows of the inputs of a model's linear layers, for `--calibration-data`."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from qmill._values import json_value, path_text
from qmill.errors import InputError, UsageError
from qmill.model import Model

from ._accounting import count_of, some_names, take_account, warn_of_gaps, why_nothing
from ._checkpoint import identity_of, refuse_quantized
from ._collectors import RowCollectors, SumCollectors
from ._comparison import warn_of_other_values
from ._destination import Destination
from ._eager import hold_eager, release_eager
from ._earlier import load_earlier, write_metadata
from ._hook import LayerHook
from ._inputs import InputTable
from ._mapping import Matching, match
from ._modules import LinearModule, linear_modules, other_weights
from ._reservoir import Label, label_of
from ._statistics import statistics_bytes
from ._writer import Entry, header_of, write_file
from .account import RecordingAccount

_log = logging.getLogger("qmill")


class Recording:
    """Records the inputs of a model's linear layers while the model runs, and writes them to a file.

    The arguments are those of `record`. Use it as `with record(...)`, or call `start`, `pause` and `finish`: several
    starts add up. Nothing is written before `finish`. If `finish` fails, the rows stay in memory, and it can be called
    again.

    Thread-safety: hooks and methods take a lock, so a model may run in several threads. But which call is which then
    depends on the threads, and so do the rows. Use one recording per model at a time; recordings of different models
    do not touch each other.
    """

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str],
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        rows: int = 4096,
        budget: int = 2 << 30,
        seed: int = 0,
        append: bool = False,
        overwrite: bool = False,
        statistics: bool = False,
        share: bool = True,
    ) -> None:
        for name, value in (("rows", rows), ("budget", budget), ("seed", seed)):
            json_value(name, value, int)
        for name, value in (("append", append), ("overwrite", overwrite), ("statistics", statistics), ("share", share)):
            json_value(name, value, bool)
        if not isinstance(model, nn.Module):
            found = "None" if model is None else f"of type {type(model).__name__}"
            raise UsageError(f"model is {found}; expected a torch.nn.Module")
        if rows < 1:
            raise UsageError(f"rows is {rows}: pass the number of rows per layer, at least 1")
        if budget < 1:
            raise UsageError(f"budget is {budget}: pass a number of bytes, at least 1")
        self._checkpoint = None if checkpoint is None else Path(path_text("checkpoint", checkpoint))
        self._destination = Destination(path, self._checkpoint, append, overwrite)
        self._model: nn.Module | None = model
        self._budget = int(budget)
        self._rows = int(rows)
        self._seed = int(seed)
        self._statistics = statistics
        self._share = share
        self._lock = threading.RLock()
        self._label: Label = None
        self._handles: list[RemovableHandle] = []
        self._running = False
        self._matching: Matching | None = None
        self._modules: list[LinearModule] = []
        self._identity: str | None = None
        self._collectors: RowCollectors | SumCollectors | None = None
        self._table: InputTable | None = None
        self._torn = False
        self._file_bytes: int | None = None
        self._final: RecordingAccount | None = None

    @property
    def step(self) -> Label:
        """The stratum of the calls that follow: what the caller names, such as a step or sigma. None: no strata."""
        return self._label

    @step.setter
    def step(self, value: object) -> None:
        self._label = label_of(value)

    @contextmanager
    def stratum(self, value: object) -> Iterator[None]:
        """Names the stratum of the calls inside a `with`, and restores the one before."""
        before, self._label = self._label, label_of(value)
        try:
            yield
        finally:
            self._label = before

    @property
    def account(self) -> RecordingAccount:
        """What is recorded so far."""
        with self._lock:
            return self._final or self._count()

    def start(self) -> None:
        """Hooks the layers. The first start checks everything that can be checked before the model runs.

        Raises UnsupportedError if the model or the checkpoint is quantized; UsageError if the model has no linear layers,
        if none matches the checkpoint, or if the budget is too small; InputError if an earlier recording cannot be added
        to; FileError if the file exists.
        """
        with self._lock:
            if self._model is None:
                raise UsageError("this recording is finished: make another one")
            if self._running:
                raise UsageError("this recording runs: call pause() or finish() first")
            if self._table is None:
                self._prepare(self._model)
            assert self._matching is not None
            hold_eager()
            self._running = True
            try:
                for linear in self._modules:
                    layers = self._matching.layers.get(linear.name)
                    if layers:
                        hook = LayerHook(linear.module, partial(self._observe, layers))
                        self._handles.append(linear.module.register_forward_pre_hook(hook, with_kwargs=True))
            except BaseException:
                self.pause()
                raise

    def pause(self) -> None:
        """Takes the hooks away. What is recorded stays in memory."""
        with self._lock:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            if self._running:
                release_eager()
            self._running = False

    def finish(self) -> RecordingAccount:
        """Takes the hooks away and writes the file. Returns the account.

        The file is complete and on the disk before it gets its name. Raises InputError if no rows were recorded, or if
        a call was interrupted while it was recorded; FileError if the file cannot be written or appeared meanwhile.
        """
        with self._lock:
            self.pause()
            if self._final is not None:
                raise UsageError("this recording is finished already")
            if self._torn:
                raise InputError(
                    "a call was interrupted while it was recorded, so the rows are not consistent; record again"
                )
            if self._table is None or not self._contents()[0]:
                raise InputError(
                    f"nothing was recorded for '{self._destination.path}': {why_nothing(self._count())}"
                )
            self._table.finish()
            entries, metadata = self._fit()
            self._file_bytes = write_file(
                self._destination.target, entries, metadata, self._destination.check, self._destination.replaces
            )
            self._final = self._count()
            warn_of_gaps(self._final)
            self._model = self._table = self._collectors = None
            self._modules = []
            return self._final

    def __repr__(self) -> str:
        with self._lock:
            if self._final is not None:
                state = "finished"
            elif self._running:
                state = "running"
            else:
                state = "not started" if self._table is None else "paused"
            layers = count_of([name for name, rows in self.account.rows.items() if rows], "layer")
            return f"<qmill.Recording to '{self._destination.path}': {state}, {layers} with data>"

    def __enter__(self) -> Recording:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finishes the recording. After an exception, nothing is written; finish() still can write what there is."""
        if kind is None:
            self.finish()
        else:
            self.pause()

    def _prepare(self, model: nn.Module) -> None:
        self._modules = linear_modules(model)
        if self._checkpoint is None:
            self._matching = Matching({linear.name: [linear.name] for linear in self._modules})
        else:
            refuse_quantized(self._checkpoint)
            self._identity = identity_of(self._checkpoint)
            with Model(self._checkpoint) as checkpoint:
                self._matching = match(self._modules, other_weights(model), checkpoint)
                self._report_matching(self._matching)
                warn_of_other_values(self._modules, self._matching, checkpoint)
        left = self._budget - self._header_bytes()
        table_collectors: RowCollectors | SumCollectors
        if self._statistics:
            table_collectors = SumCollectors(left)
            least = min(statistics_bytes(linear.shape[1]) for linear in self._modules)
        else:
            table_collectors = RowCollectors(left, self._rows, self._seed)
            least = sum(table_collectors.least_bytes(linear.shape[1]) for linear in self._modules)
        if left < least:
            raise UsageError(
                f"the budget of {self._budget} bytes is too small for {count_of(self._modules, 'layer')}: "
                f"pass at least {self._budget - left + least}"
            )
        table = InputTable(table_collectors, self._share)
        if self._destination.adds_to_file:
            load_earlier(self._destination.path, self._identity, self._seed, table_collectors, table, self._share)
        self._collectors, self._table = table_collectors, table

    def _header_bytes(self) -> int:
        """An estimate of the header without strata: four entries and three mentions per layer."""
        assert self._matching is not None
        names = [layer for layers in self._matching.layers.values() for layer in layers]
        return len(self._identity or "") + 1024 + sum(7 * len(name.encode()) + 512 for name in names)

    def _report_matching(self, matching: Matching) -> None:
        if not matching.layers:
            raise UsageError(
                f"no linear layer of the model matches a layer of '{self._checkpoint}', by name or by weight: "
                "pass the checkpoint that the model was loaded from"
            )
        if matching.modules_without_layer or matching.layers_without_module:
            _log.warning(
                "%s: without a layer, so not recorded: %s%s; without a module, so without data: %s%s",
                self._checkpoint,
                count_of(matching.modules_without_layer, "linear module"),
                some_names(matching.modules_without_layer),
                count_of(matching.layers_without_module, "layer"),
                some_names(matching.layers_without_module),
            )

    def _observe(self, layers: list[str], x: Tensor | None) -> None:
        with self._lock, torch.inference_mode(False), torch.no_grad():
            if self._table is None or self._torn:
                return
            self._torn = True
            for layer in layers:
                self._table.observe(layer, None if x is None else x.detach(), self._label)
            self._torn = False

    def _fit(self) -> tuple[list[Entry], dict[str, str]]:
        assert self._collectors is not None
        entries, metadata = self._contents()
        header = len(header_of(entries, metadata))
        if header + sum(entry.bytes for entry in entries) > self._budget:
            self._collectors.shrink(self._budget - header)
            entries, metadata = self._contents()
            size = len(header_of(entries, metadata)) + sum(entry.bytes for entry in entries)
            if size > self._budget:
                raise UsageError(
                    f"the file needs {size} bytes, {header} of them for names and strata, and the budget is "
                    f"{self._budget} bytes: raise the budget, or name fewer strata"
                )
        return entries, metadata

    def _contents(self) -> tuple[list[Entry], dict[str, str]]:
        assert self._table is not None
        entries = [entry for shared in self._table.inputs() for entry in shared.collector.entries(shared.layers[0])]
        options = {
            "rows": self._rows,
            "budget": self._budget,
            "seed": self._seed,
            "statistics": self._statistics,
            "share": self._share,
        }
        return entries, write_metadata(self._table, self._identity, options)

    def _count(self) -> RecordingAccount:
        limit = self._collectors.budget.limit if isinstance(self._collectors, RowCollectors) else self._rows
        table = self._table or InputTable(RowCollectors(0, 0, 0), self._share)
        return take_account(self._destination.path, table, self._matching or Matching(), limit, self._file_bytes)


def record(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    rows: int = 4096,
    budget: int = 2 << 30,
    seed: int = 0,
    append: bool = False,
    overwrite: bool = False,
    statistics: bool = False,
    share: bool = True,
) -> Recording:
    """Records the inputs of the linear layers of `model` into the safetensors file `path`, for `--calibration-data`.

        with qmill.record(model, "rows.safetensors", checkpoint="model.safetensors") as recording:
            for step, sigma in enumerate(sigmas):
                recording.step = step
                model(...)

    The model is the unquantized one. Layers are modules with `in_features` and a weight [N, K], on any device. An
    exception inside the `with` leaves no file; `recording.finish()` still can write what was recorded until then.
    Compiled code of this process runs uncompiled while a recording runs.

    Args:
        checkpoint: the file that the model was loaded from; layers get its names. Without it, names of modules.
        rows: rows [K] that are kept per distinct input, BF16: a uniform sample, shared evenly over the strata.
        budget: bytes for the file, and for the rows in memory (beside the rows of one call). If rows do not fit, all
            inputs get fewer rows, the same number each.
        seed: chooses the rows. The same calls with the same seed give the same file.
        append: adds to the recording of the same checkpoint at `path`, in proportion to the rows seen; if there is no
            file, begins one.
        overwrite: replaces a file at `path`.
        statistics: instead of rows, writes XᵀX / T [K, K], the mean, and channel_max and channel_mean, F32. All rows
            count the same. Layers whose statistics do not fit the budget are left out and named in a warning.
        share: stores an input that several layers read once; the metadata `shared_inputs` name the others. False
            stores it for every layer, for programs that do not know these metadata.

    Raises UsageError, FileError at once; see `Recording.start` and `Recording.finish` for the others.
    """
    return Recording(
        model,
        path,
        checkpoint=checkpoint,
        rows=rows,
        budget=budget,
        seed=seed,
        append=append,
        overwrite=overwrite,
        statistics=statistics,
        share=share,
    )
