"""The quality report, for tensors in memory: the same figures and the same text as those of a conversion."""

from typing import Dict, List

import torch
from qmill import _native
from qmill._tensors import on_cpu
from qmill._values import Json, json_value


class QualityReporter:
    """Collects how close quantized layers are to their originals. One thread at a time."""

    def __init__(self, threshold: float = 30.0) -> None:
        """`threshold`: in dB; layers with a lower SQNR are counted. Raises UsageError if it is no number."""
        self._threshold = json_value("threshold", threshold, float)
        self._layers: List[Dict[str, Json]] = []

    def add_layer(self, layer_name: str, original_tensor: torch.Tensor, dequantized_tensor: torch.Tensor) -> None:
        """Adds a layer. Both tensors are floating and have the same shape; devices and types may differ.

        Raises UsageError that names the layer otherwise; then nothing is added.
        """
        tensors = [on_cpu("original_tensor", original_tensor), on_cpu("dequantized_tensor", dequantized_tensor)]
        self._layers += _native.call(
            "layer_quality", {"name": json_value("layer_name", layer_name, str)}, tensors
        ).json["layers"]

    def get_report_string(self) -> str:
        """The table of all layers, sorted by name, with MSE and SQNR of each."""
        text: str = _native.call("quality_report", {"threshold": self._threshold, "layers": self._layers}).json["text"]
        return text
