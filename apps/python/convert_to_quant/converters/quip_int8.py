"""QuIP: incoherence by random transforms, then rounding with feedback of the errors (LDLQ)."""

from typing import Dict, Optional

import torch

from .._request import parameters
from ._int8_converter import Converted, Int8Converter


class QuIPInt8Converter(Int8Converter):
    """Rounds a weight so that its outputs change little, under the Hessian of its inputs. Immutable; any thread may use it."""

    def __init__(
        self,
        block_size: int = 128,
        device: str = "cuda",
        actorder: bool = True,
        use_hadamard: bool = True,
        seed: Optional[int] = None,
        use_triton: bool = False,
        lazy_updates: bool = True,
        store_transformed: bool = False,
        requant_scheme: str = "tensor",
        requant_tensor_use_per_row_scale: bool = True,
        streaming_mode: str = "balanced",
        streaming_thresholds: Dict[str, Optional[int]] = {},  # documented; it is only read
        no_memory_limits: bool = False,
        use_checkpointed_ldlq: bool = False,
        checkpointed_ldlq_threshold: int = 8192,
        checkpoint_segments: int = 4,
    ) -> None:
        """Checks the options; the work is in `convert`.

        block_size: columns in a block of the algorithm: speed only. With `requant_scheme="block"` also the edge of a tile.
        device: "auto", "cpu" or "cuda[:N]"; "cuda" means a GPU if this build of qmill can use one.
        actorder: columns with the largest inputs first.
        use_hadamard: False is an error together with `store_transformed`, and changes nothing otherwise.
        seed: of the random signs, which this class does not store.
        use_triton: for GPUs; a message says that it changes nothing on a CPU.
        lazy_updates: False: one column after the other, for the same codes.
        store_transformed: codes and scale belong to the Hadamard basis.
        requant_scheme: "tensor", or "block" for one scale per tile.
        requant_tensor_use_per_row_scale: False: one scale for the whole weight.
        streaming_mode: "off", "minimal", "balanced", "aggressive" or "auto"; only checked, as one weight is in memory as a whole.
        streaming_thresholds: by step ("hadamard", "hessian", "ldlq", "ortho"), from how many values on it is done in pieces.
        no_memory_limits: an error together with thresholds.
        use_checkpointed_ldlq: wide weights are done in parts, for the same codes.
        checkpointed_ldlq_threshold: columns from which a weight is wide.
        checkpoint_segments: number of parts of a wide weight.

        Raises UsageError that names the option.
        """
        super().__init__("quip", parameters(QuIPInt8Converter.__init__, locals()))

    def convert(
        self,
        weight_tensor: torch.Tensor,
        H: Optional[torch.Tensor] = None,
        activation_scales: Optional[torch.Tensor] = None,
        smoothquant_alpha: float = 0.5,
    ) -> Converted:
        """(q, scale, dequantized) of a floating weight [N, K], on its device.

        H: floating [K, K], XᵀX of inputs X [rows, K]; multiplying it by a number changes nothing. Without it the identity.
        activation_scales: floating [K], the largest input of each column; weights the columns where H is not given.
        smoothquant_alpha: how much of that comes from the inputs instead of the weight, 0 to 1.

        q is I8 [N, K] and scale F32 [N, 1], [] or [N/block_size, K/block_size]. dequantized is F32 [N, K] in the basis of the weight,
        and is exactly q · scale unless `store_transformed`.
        Raises UsageError for types and shapes that do not fit, and NumericError for values that are not finite.
        """
        return self._convert(weight_tensor, H, activation_scales, smoothquant_alpha)
