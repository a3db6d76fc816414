"""GPTQ: column by column, with feedback of the errors (arXiv 2210.17323)."""

from typing import Optional

import torch

from .._request import parameters
from ._int8_converter import Converted, Int8Converter


class GPTQInt8Converter(Int8Converter):
    """Rounds a weight so that its outputs change little, under the Hessian of its inputs. Immutable; any thread may use it."""

    def __init__(
        self,
        block_size: int = 128,
        device: str = "cuda",
        actorder: bool = True,
        lazy_updates: bool = True,
        use_triton: bool = False,
    ) -> None:
        """Checks the options; the work is in `convert`.

        block_size: columns in a block of the algorithm: speed only.
        device: "auto", "cpu" or "cuda[:N]"; "cuda" means a GPU if this build of qmill can use one.
        actorder: columns with the largest inputs first.
        lazy_updates: False: one column after the other, for the same codes.
        use_triton: for GPUs; a message says that it changes nothing on a CPU.

        Raises UsageError that names the option.
        """
        super().__init__("gptq", parameters(GPTQInt8Converter.__init__, locals()))

    def convert(self, weight_tensor: torch.Tensor, H: Optional[torch.Tensor] = None) -> Converted:
        """(q, scale, dequantized) of a floating weight [N, K], on its device.

        H: floating [K, K], XᵀX of inputs X [rows, K]; multiplying it by a number changes nothing. Without it the identity.

        q is I8 [N, K], scale F32 [N, 1], and dequantized = q · scale F32 [N, K], exactly.
        Raises UsageError for types and shapes that do not fit, and NumericError for values that are not finite.
        """
        return self._convert(weight_tensor, H)
