"""Of ComfyUI: its wrappers, patchers, base model, sampling and CLIP."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import management

Wrappers = dict[str, dict[str | None, list[Callable[..., Any]]]]


class WrappersMP:
    OUTER_SAMPLE = "outer_sample"
    APPLY_MODEL = "apply_model"


class WrapperExecutor:
    """Calls the wrappers in their order, then the original. A wrapper gets the executor of what comes after it."""

    def __init__(self, original: Callable[..., Any], class_obj: Any, wrappers: list[Callable[..., Any]]) -> None:
        self.original = original
        self.class_obj = class_obj
        self.wrappers = wrappers

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        if not self.wrappers:
            return self.original(*args, **kwargs)
        return self.wrappers[0](self, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return WrapperExecutor(self.original, self.class_obj, self.wrappers[1:]).execute(*args, **kwargs)


def get_all_wrappers(kind: str, wrappers: Wrappers) -> list[Callable[..., Any]]:
    return [wrapper for group in wrappers.get(kind, {}).values() for wrapper in group]


class ModelPatcher:
    """A clone shares the module, and has wrappers of its own."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.wrappers: Wrappers = {}

    def clone(self) -> ModelPatcher:
        other = ModelPatcher(self.model)
        other.wrappers = {
            kind: {key: group.copy() for key, group in groups.items()} for kind, groups in self.wrappers.items()
        }
        return other

    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper: Callable[..., Any]) -> None:
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)


class BaseModel(nn.Module):
    diffusion_model: Any

    def __init__(self, diffusion_model: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = diffusion_model

    def apply_model(self, x: Tensor, t: Tensor, c_crossattn: Tensor, transformer_options: dict[str, Any]) -> Tensor:
        wrappers = get_all_wrappers(WrappersMP.APPLY_MODEL, transformer_options["wrappers"])
        executor = WrapperExecutor(self._apply_model, self, wrappers)
        result: Tensor = executor.execute(x, t, c_crossattn, transformer_options=transformer_options)
        return result

    def _apply_model(self, x: Tensor, t: Tensor, c_crossattn: Tensor, transformer_options: dict[str, Any]) -> Tensor:
        result: Tensor = self.diffusion_model(x, t, context=c_crossattn)
        return result


def sample(
    patcher: ModelPatcher,
    x: Tensor,
    sigmas: list[float],
    positive: Tensor,
    negative: Tensor,
    after_step: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Euler's method with guidance. One call of the model per step has both conditions, one after the other."""

    def outer_sample(x: Tensor) -> Tensor:
        options = {"wrappers": copy.copy(patcher.wrappers)}
        for step, (sigma, following) in enumerate(zip(sigmas, sigmas[1:], strict=False)):
            management.throw_exception_if_processing_interrupted()
            t = torch.full([len(x)], sigma)
            both = patcher.model.apply_model(
                torch.cat([x, x]), torch.cat([t, t]), torch.cat([positive, negative]), transformer_options=options
            )
            conditional, unconditional = both.chunk(2)
            x = x + (following - sigma) * (unconditional + 2.0 * (conditional - unconditional))
            after_step(step)
        return x

    with torch.inference_mode():
        wrappers = get_all_wrappers(WrappersMP.OUTER_SAMPLE, patcher.wrappers)
        result: Tensor = WrapperExecutor(outer_sample, None, wrappers).execute(x)
    return result


class CLIP:
    """A clone shares the module. Text encoders are below names of their own, each with a `transformer`."""

    def __init__(self, cond_stage_model: Any = None) -> None:
        if cond_stage_model is not None:
            self.cond_stage_model = cond_stage_model
            self.patcher = ModelPatcher(cond_stage_model)
            self.layer_idx: int | None = None

    def clone(self) -> CLIP:
        other = CLIP()
        other.patcher = self.patcher.clone()
        other.cond_stage_model = self.cond_stage_model
        other.layer_idx = self.layer_idx
        return other

    def encode_from_tokens_scheduled(self, tokens: Tensor) -> list[Any]:
        return [[self.encode_from_tokens(tokens), {}]]

    def encode_from_tokens(self, tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            result: Tensor = self.cond_stage_model.encode_token_weights(tokens)
        return result
