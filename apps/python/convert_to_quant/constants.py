"""Types of stored tensors, the largest code, the model filters, and names for types."""

import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Dict, Final, TypeAlias

import qmill
import torch
from qmill.results import Filter

TARGET_INT8_DTYPE: Final = torch.int8
"""The type of codes."""
COMPUTE_DTYPE: Final = torch.float32
"""The type of the arithmetic."""
SCALE_DTYPE: Final = torch.float32
"""The type of scales."""
INT8_SYMMETRIC_MAX: Final = 127
"""The largest code; the smallest is -127."""

WeightTensor: TypeAlias = torch.Tensor
"""Floating [out_features, in_features]."""
ScaleTensor: TypeAlias = torch.Tensor
"""F32 [out_features, 1], [out_features / block, in_features / block], or a scalar."""
HessianMatrix: TypeAlias = torch.Tensor
"""Floating [in_features, in_features]: XᵀX of inputs X [rows, in_features], multiplied by any number."""
FilterFlags: TypeAlias = Dict[str, bool]
"""By name of a filter: whether it is used."""
LayerConfig: TypeAlias = Dict[str, Any]
"""What `load_layer_config` returns."""


class _ModelFilters(Mapping[str, Filter]):
    """The filters that qmill finds, by name; `-` and `_` are the same. It looks for them at the first use."""

    @functools.cached_property
    def _by_name(self) -> Dict[str, Filter]:
        return {entry.name: entry for entry in qmill.filters()}

    def __getitem__(self, name: str) -> Filter:
        found = self._by_name.get(str(name).replace("-", "_"))
        if found is None:
            nearest = difflib.get_close_matches(str(name), self._by_name, 1)
            raise KeyError(f"no filter '{name}'" + (f"; did you mean '{nearest[0]}'?" if nearest else ""))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


MODEL_FILTERS: Final[Mapping[str, Filter]] = _ModelFilters()
"""The model filters: which tensors each keeps as they are, and which it removes."""
