"""What the functions of this package give back: dataclasses with the fields of docs/json.md.

Fields may be added. Every result has `to_dict()`, the JSON that the command prints, as Python objects. Results that
hold tensors, lists or dictionaries are equal only to themselves.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

_T = TypeVar("_T", bound="Result")


@dataclass(frozen=True, eq=False)
class Result:
    """Base of all results."""

    _json: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """All that is known, as plain Python objects: also fields that are no attributes."""
        return self._json

    @classmethod
    def from_dict(cls: type[_T], json: dict[str, Any]) -> _T:
        """From such a dictionary."""
        hints = typing.get_type_hints(cls)
        values = {
            each.name: _converted(hints[each.name], json[each.name])
            for each in dataclasses.fields(cls)
            if each.name in json
        }
        return cls(**values, _json=json)


def _converted(hint: Any, value: Any) -> Any:
    """A JSON value as an attribute of this type."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if value is None:
        return None
    if origin in (typing.Union, types.UnionType):
        return _converted(next(each for each in arguments if each is not type(None)), value)
    if origin is list:
        return [_converted(arguments[0], each) for each in value]
    if origin is tuple:
        return tuple(value)
    if isinstance(hint, type) and issubclass(hint, Result):
        return hint.from_dict(value)
    if hint is Path:
        return Path(value)
    return value


@dataclass(frozen=True, eq=False)
class LayerQuality(Result):
    """How close a stored layer is to its source: source minus what a reader decodes from the stored bytes."""

    name: str
    format: str  # as files name it: "int8_tensorwise"
    layout: str  # "int8 row, rotated 256"
    mse: float | None = None  # mean squared error; None: not a finite number
    sqnr_db: float | None = None  # 10 log10(mean x^2 / mse); None: stored without any error
    max_error: float | None = None
    output_error: float | None = None  # ||X W^T - X What^T|| / ||X W^T|| on inputs X that nothing was fitted to
    rounding_output_error: float | None = None  # the same of rounding to nearest
    output_rows: int = 0  # rows of X
    measured: bool = True  # False: quality="off", and there are no figures


@dataclass(frozen=True, eq=False)
class LayerReport(LayerQuality):
    """A layer of a finished conversion."""

    quantizer: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class ConvertResult(Result):
    """A finished conversion. The file is complete and has its name."""

    output: Path
    output_files: list[Path]  # `output`, or its shards and last their index
    output_bytes: int
    input_bytes: int
    seconds: float
    peak_memory_bytes: int
    architecture: str | None  # None: not known
    filters: list[str]
    quantizer: str
    seed: int
    mean_sqnr_db: float | None
    mean_output_error: float | None
    mean_rounding_output_error: float | None
    layers: list[LayerReport]
    remarks: list[str]
    warnings: list[str]

    def __repr__(self) -> str:
        names = ("output_bytes", "input_bytes", "quantizer", "mean_sqnr_db", "mean_output_error")
        figures = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        counts = f"{len(self.layers)} layers, {len(self.warnings)} warnings"
        return f"<ConvertResult '{self.output}': {figures}, {counts}>"


@dataclass(frozen=True)
class TensorInfo(Result):
    """Name, element type ("BF16") and shape of a tensor in a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    stored_type: str | None = None  # where the file has another one: "Q4_K"


@dataclass(frozen=True, eq=False)
class PlannedLayer(Result):
    """What becomes of a layer, and which rule decided."""

    name: str
    action: str  # quantize, correct, cast, copy, merge, remove
    rule: str
    reason: str
    quantizer: str | None
    format: str | None
    layout: str | None
    note: str  # why it gets less than you asked for; empty: it does not
    outputs: list[TensorInfo]


@dataclass(frozen=True)
class ReaderClaim(Result):
    """What mainline ComfyUI makes of the layers that are quantized."""

    loads: bool | None  # None: not known
    since: str  # first release that reads all formats; empty: any
    because: str  # why not, or why it is not known


@dataclass(frozen=True, eq=False)
class Plan(Result):
    """What `convert` with the same arguments would do. Nothing was written."""

    layers: list[PlannedLayer]
    output_bytes: int  # exact, with the headers
    output_files: list[Path]
    tensors: int
    architecture: str | None
    filters: list[str]
    quantizer: str
    seed: int
    memory: str
    remarks: list[str]
    comfyui: ReaderClaim
    warnings: list[str]
    digest: str


@dataclass(frozen=True, eq=False)
class StoredLayer(Result):
    """A matrix in a file."""

    name: str
    format: str
    layout: str
    quantized: bool
    shape: tuple[int, ...]
    marker: Any  # the JSON object of its marker, or None


@dataclass(frozen=True, eq=False)
class Inspection(Result):
    """What a file holds."""

    architecture: str | None
    filter: str | None
    quantized_by: str | None  # another tool, whose format is not decoded
    layers: list[StoredLayer]
    tensors: list[TensorInfo]
    metadata: dict[str, str]


@dataclass(frozen=True)
class Finding(Result):
    """What a rule of a reader says of a file."""

    level: str  # error, remark
    rule: str
    tensor: str
    text: str


@dataclass(frozen=True)
class ReaderVerdict(Result):
    """Whether a program loads a file."""

    name: str
    loads: bool | None  # None: not known
    since: str
    because: str


@dataclass(frozen=True, eq=False)
class Verification(Result):
    """A file, judged by the rules of the programs that load it."""

    loads: bool  # in mainline ComfyUI
    readers: list[ReaderVerdict]
    findings: list[Finding]


@dataclass(frozen=True, eq=False)
class Comparison(Result):
    """The quality of a quantized file."""

    layers: list[LayerQuality]
    mean_sqnr_db: float | None
    mean_output_error: float | None
    mean_rounding_output_error: float | None


@dataclass(frozen=True, eq=False)
class DequantizeResult(Result):
    """A plain model, made from a quantized one."""

    output: Path
    output_bytes: int
    dtype: str
    seconds: float
    warnings: list[str]


@dataclass(frozen=True)
class SampledLayer(Result):
    """A layer of a file of statistics, and the number of rows behind it."""

    name: str
    rows: int


@dataclass(frozen=True, eq=False)
class CalibrateResult(Result):
    """A file of statistics, made from sample rows."""

    output: Path
    output_bytes: int
    distinct_inputs: int
    layers: list[SampledLayer]
    unmatched: list[str]
    empty: list[str]


@dataclass(frozen=True)
class Architecture(Result):
    """A kind of model that a filter recognises. Its fingerprint is in `to_dict()`."""

    name: str


@dataclass(frozen=True, eq=False)
class Filter(Result):
    """A model filter: which layers of a model stay as they are."""

    name: str
    category: str
    summary: str
    keep: list[str] | None = None  # patterns of tensors that stay as they are; None: code decides
    remove: list[str] | None = None  # patterns of tensors that are dropped; None: code decides
    architectures: list[Architecture] = field(default_factory=list)  # what it recognises; empty: no model


@dataclass(frozen=True)
class Offer(Result):
    """Something that a plugin has."""

    kind: str  # quantizer, filter, loader, format
    name: str


@dataclass(frozen=True, eq=False)
class Plugin(Result):
    """A file that is a plugin, or might be one."""

    name: str
    file: Path
    status: str  # compatible, loaded, refused, shadowed
    reason: str  # why it was refused
    version: str
    offers: list[Offer]


@dataclass(frozen=True, eq=False)
class Option(Result):
    """An option of a conversion."""

    name: str
    type: str  # bool, int, float, str
    default: Any
    choices: list[str]
    at_least: float | None
    at_most: float | None
    group: str
    help: str
    is_list: bool
    changes_bytes: bool


@dataclass(frozen=True, eq=False)
class QuantizedWeight(Result):
    """A weight [N, K], quantized."""

    tensors: dict[str, torch.Tensor]  # as a file has them: codes, scales, marker; by name
    dequantized: torch.Tensor  # F32 [N, K]: what a reader computes from them, exactly
    report: LayerReport

    def __repr__(self) -> str:
        stored = ", ".join(
            f"'{name}' {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for name, tensor in self.tensors.items()
        )
        quality = f"sqnr_db={self.report.sqnr_db!r}, output_error={self.report.output_error!r}"
        return f"<QuantizedWeight '{self.report.name}': {self.report.format}, {quality}, tensors {stored}>"
