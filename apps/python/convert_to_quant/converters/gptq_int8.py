"""GPTQ: column by column, with feedback of the errors (arXiv 2210.17323)."""

from typing import Optional

import torch

from .._request import parameters
from ._int8_converter import Converted, Int8Converter


class GPTQInt8Converter(Int8Converter):
    """Rounds a weight under the Hessian of its inputs. Immutable; any thread may use it."""

    def __init__(
        self,
        block_size: int = 128,
        device: str = "cuda",
        actorder: bool = True,
        lazy_updates: bool = True,
        use_triton: bool = False,
    ) -> None:
        """Checks the options; the work is in `convert`.

        Args:
            block_size: Columns in a block of the algorithm: speed only.
            device: "auto", "cpu" or "cuda[:N]". "cuda" means a GPU if this build of qmill can use one.
            actorder: Columns with the largest inputs first.
            lazy_updates: False: one column after the other, for the same codes.
            use_triton: For GPUs; a message says that it changes nothing on a CPU.

        Raises:
            UsageError: It names the option.
        """
        super().__init__("gptq", parameters(GPTQInt8Converter.__init__, locals()))

    def convert(self, weight_tensor: torch.Tensor, H: Optional[torch.Tensor] = None) -> Converted:
        """Quantizes a weight.

        Args:
            weight_tensor: Floating [N, K].
            H: Floating [K, K]: XᵀX of inputs X [rows, K], multiplied by any number. Default: the identity.

        Returns:
            On the device of the weight: q I8 [N, K], scale F32 [N, 1], and dequantized = q · scale F32 [N, K], exactly.

        Raises:
            UsageError: A type or a shape that does not fit.
            NumericError: Values that are not finite.
        """
        return self._convert(weight_tensor, H)
