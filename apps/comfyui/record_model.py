"""The node that records the inputs of the layers of a diffusion model while it samples."""

from __future__ import annotations

from typing import Any

import torch

from . import files, widgets
from .host import comfyui, show_on_node
from .session import Session

WRAPPER_KEY = "qmill"


class RecordModel:
    """MODEL in, MODEL out. What is sampled with the MODEL that comes out is recorded; the one that goes in is not."""

    DESCRIPTION = (
        "Records the inputs of the model's layers while it samples. qmill convert uses these rows to choose better "
        "codes. Every run is added to the file."
    )
    CATEGORY = "qmill"
    RETURN_TYPES = ("MODEL", "QMILL_RECORDING")
    RETURN_NAMES = ("model", "recording")
    FUNCTION = "record"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "the model before quantization"}),
                **widgets.recording(files.DIFFUSION_FOLDERS),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def record(self, model: Any, enabled: bool, node_id: str | None = None, **values: Any) -> tuple[Any, Any]:
        """Returns the model to sample with, and its session. If the switch is off, it is the model that came in."""
        session = Session(widgets.settings(enabled=enabled, **values), lambda text: show_on_node(node_id, text))
        return (recorded_model(model, session) if enabled else model), session


def recorded_model(model: Any, session: Session) -> Any:
    """A clone of the ModelPatcher `model` whose sampling is recorded by `session`.

    The stratum of the rows is the noise level sigma of the call.
    """
    wrappers = comfyui("comfy.patcher_extension").WrappersMP

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with session.run():
            return executor(*args, **kwargs)

    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with session.call(executor.class_obj.diffusion_model, _noise_level(*args, **kwargs)):
            return executor(*args, **kwargs)

    clone = model.clone()
    for kind, wrapper in ((wrappers.OUTER_SAMPLE, outer_sample), (wrappers.APPLY_MODEL, apply_model)):
        clone.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)
    return clone


def _noise_level(x: Any, t: torch.Tensor, *_: Any, **__: Any) -> float:
    """The sigma of a call of BaseModel.apply_model, to three digits: samplers compute it with rounding errors.

    A batch has one: ComfyUI repeats it for every entry.
    """
    return float(f"{float(t.flatten()[0]):.3g}")
