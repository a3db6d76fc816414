"""Learned rounding: chooses up or down for each value by descent along the dominant directions of the weight."""

from typing import Optional

import torch

from .._request import parameters
from ._int8_converter import Converted, Int8Converter


class LearnedRoundingConverter(Int8Converter):
    """Rounds a weight into tiles with one scale each. Immutable; any thread may use it."""

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

        Args:
            block_size: Edge of a tile; it must divide both sides of a weight.
            num_iter: Most iterations.
            lr: Size of a step.
            optimizer: "original", "adamw" or "radam".
            lr_schedule: "adaptive", "exponential" or "plateau".
            top_p: Directions in use, as a part of the smaller side.
            min_k: Fewest directions.
            max_k: Most directions.

        Raises:
            UsageError: It names the option.
        """
        super().__init__("learned_rounding", parameters(LearnedRoundingConverter.__init__, locals()))

    def convert(self, weight_tensor: torch.Tensor, activation_scales: Optional[torch.Tensor] = None) -> Converted:
        """Quantizes a weight.

        Args:
            weight_tensor: Floating [N, K].
            activation_scales: Floating [K]: the largest input of each column. Weights the columns.

        Returns:
            On the device of the weight: q I8 [N, K], scale F32 [N / block_size, K / block_size], and dequantized F32
            [N, K], which is exactly q · the scale of its tile.

        Raises:
            UsageError: A type or a shape that does not fit.
            NumericError: Values that are not finite.
        """
        return self._convert(weight_tensor, activation_scales=activation_scales)
