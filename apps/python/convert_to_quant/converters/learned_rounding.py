"""Learned rounding: chooses up or down for each value by descent along the dominant directions of the weight."""

from typing import Optional

import torch

from .._request import parameters
from ._int8_converter import Converted, Int8Converter


class LearnedRoundingConverter(Int8Converter):
    """Rounds a weight into tiles that have one scale each. Immutable; any thread may use it."""

    def __init__(
        self,
        block_size: int = 128,
        num_iter: int = 1000,
        lr: float = 0.008,
        optimizer: str = "original",
        lr_schedule: str = "adaptive",
        top_p: float = 0.2,
        min_k: int = 64,
        max_k: int = 1024,
    ) -> None:
        """Checks the options; the work is in `convert`.

        block_size: edge of a tile; it must divide both sides of a weight.
        num_iter: most iterations.
        lr: size of a step.
        optimizer: "original", "adamw" or "radam".
        lr_schedule: "adaptive", "exponential" or "plateau".
        top_p: directions in use, as a part of the smaller side.
        min_k, max_k: fewest and most directions.

        Raises UsageError that names the option.
        """
        super().__init__("learned_rounding", parameters(LearnedRoundingConverter.__init__, locals()))

    def convert(self, weight_tensor: torch.Tensor, activation_scales: Optional[torch.Tensor] = None) -> Converted:
        """(q, scale, dequantized) of a floating weight [N, K], on its device.

        activation_scales: floating [K], the largest input of each column; weights the columns.

        q is I8 [N, K], scale F32 [N/block_size, K/block_size], and dequantized = q · (scale of the tile) F32 [N, K], exactly.
        Raises UsageError for types and shapes that do not fit, and NumericError for values that are not finite.
        """
        return self._convert(weight_tensor, activation_scales=activation_scales)
