"""QuIP: incoherence by random transforms, then rounding with feedback of the errors (LDLQ)."""

from typing import Dict, Optional

import torch

from .._request import parameters
from ._int8_converter import Converted, Int8Converter


class QuIPInt8Converter(Int8Converter):
    """Rounds a weight under the Hessian of its inputs. Immutable; any thread may use it."""

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

        Args:
            block_size: Columns in a block of the algorithm: speed only. With `requant_scheme="block"` also the edge of
                a tile.
            device: "auto", "cpu" or "cuda[:N]". "cuda" means a GPU if this build of qmill can use one.
            actorder: Columns with the largest inputs first.
            use_hadamard: False: an error with `store_transformed`; it changes nothing otherwise.
            seed: Of the random signs, which this class does not store.
            use_triton: For GPUs; a message says that it changes nothing on a CPU.
            lazy_updates: False: one column after the other, for the same codes.
            store_transformed: Codes and scale belong to the Hadamard basis.
            requant_scheme: "tensor", or "block" for one scale per tile.
            requant_tensor_use_per_row_scale: False: one scale for the whole weight.
            streaming_mode: "off", "minimal", "balanced", "aggressive" or "auto". It is only checked: one weight is
                always in memory as a whole.
            streaming_thresholds: By step ("hadamard", "hessian", "ldlq", "ortho"): from how many values on it is done
                in pieces.
            no_memory_limits: An error together with thresholds.
            use_checkpointed_ldlq: Does wide weights in parts, for the same codes.
            checkpointed_ldlq_threshold: Columns from which a weight is wide.
            checkpoint_segments: Number of parts of a wide weight.

        Raises:
            UsageError: It names the option.
        """
        super().__init__("quip", parameters(QuIPInt8Converter.__init__, locals()))

    def convert(
        self,
        weight_tensor: torch.Tensor,
        H: Optional[torch.Tensor] = None,
        activation_scales: Optional[torch.Tensor] = None,
        smoothquant_alpha: float = 0.5,
    ) -> Converted:
        """Quantizes a weight.

        Args:
            weight_tensor: Floating [N, K].
            H: Floating [K, K]: XᵀX of inputs X [rows, K], multiplied by any number. Default: the identity.
            activation_scales: Floating [K]: the largest input of each column. Weights the columns if there is no H.
            smoothquant_alpha: How much of that comes from the inputs instead of the weight, 0 to 1.

        Returns:
            On the device of the weight: q I8 [N, K]; scale F32 [N, 1], [] or [N / block_size, K / block_size];
            dequantized F32 [N, K] in the basis of the weight. It is q · scale exactly, unless `store_transformed`.

        Raises:
            UsageError: A type or a shape that does not fit.
            NumericError: Values that are not finite.
        """
        return self._convert(weight_tensor, H, activation_scales, smoothquant_alpha)
