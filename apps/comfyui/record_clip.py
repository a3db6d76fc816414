"""The node that records the inputs of the layers of a text encoder while it encodes."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from . import files, widgets
from .host import qmill, show_on_node
from .session import Session

_ATTRIBUTE = "qmill_recordings"  # of a CLIP: pairs of a session and the text encoder that it records


class RecordClip:
    """CLIP in, CLIP out. What is encoded with the CLIP that comes out is recorded; the one that goes in is not."""

    DESCRIPTION = (
        "Records the inputs of a text encoder's layers while it encodes. qmill convert uses these rows to choose "
        "better codes. Every text is added to the file."
    )
    CATEGORY = "qmill"
    RETURN_TYPES = ("CLIP", "QMILL_RECORDING")
    RETURN_NAMES = ("clip", "recording")
    FUNCTION = "record"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "clip": ("CLIP", {"tooltip": "the text encoder before quantization"}),
                **widgets.recording(files.TEXT_ENCODER_FOLDERS),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def record(self, clip: Any, enabled: bool, node_id: str | None = None, **values: Any) -> tuple[Any, Any]:
        """Returns the CLIP to encode with, and its session. If the switch is off, it is the CLIP that came in."""
        session = Session(widgets.settings(enabled=enabled, **values), lambda text: show_on_node(node_id, text))
        if session.settings.checkpoint is None:
            return clip, session
        encoder = encoder_of(clip.cond_stage_model, session.settings.checkpoint)
        return recorded_clip(clip, session, encoder), session


def encoder_of(model: nn.Module, checkpoint: Path) -> nn.Module:
    """The text encoder inside `model`, ComfyUI's module of one or more, whose layers `checkpoint` has.

    Raises ValueError if none of them has a layer of the checkpoint.
    """
    with qmill().open_model(checkpoint) as file:
        keys = frozenset(file.keys())
    found: nn.Module | None = None
    most = 0
    names = []
    for name, module in model.named_modules():
        encoder = getattr(module, "transformer", None)
        if not isinstance(encoder, nn.Module):
            continue
        names.append(name)
        shared = sum(f"{layer}.weight" in keys for layer, _ in encoder.named_modules())
        if shared > most:
            found, most = encoder, shared
    if found is None:
        raise ValueError(
            f"none of the text encoders of this CLIP ({', '.join(names) or 'none found'}) has a layer of "
            f"'{checkpoint}': choose the file that the CLIP was loaded from"
        )
    return found


def recorded_clip(clip: Any, session: Session, encoder: nn.Module) -> Any:
    """A clone of `clip` whose encoding is recorded by `session`. Clones of the clone are recorded, too.

    ComfyUI has no wrappers around an encoding, so the clone is of a subclass that has. A CLIP that is recorded already,
    as of another of its text encoders, is recorded by both.
    """
    clone = clip.clone()
    earlier = getattr(clip, _ATTRIBUTE, ())
    if not earlier:
        base: Any = type(clip)
        clone.__class__ = _recorded_class(base)
    setattr(clone, _ATTRIBUTE, (*earlier, (session, encoder)))
    return clone


@functools.cache
def _recorded_class(base: Any) -> type:
    class RecordedCLIP(base):  # type: ignore[misc]
        def clone(self, *args: Any, **kwargs: Any) -> Any:
            other = super().clone(*args, **kwargs)
            other.__class__ = RecordedCLIP
            setattr(other, _ATTRIBUTE, getattr(self, _ATTRIBUTE))
            return other

        def encode_from_tokens(self, *args: Any, **kwargs: Any) -> Any:
            with _recording(self):
                return super().encode_from_tokens(*args, **kwargs)

        def encode_from_tokens_scheduled(self, *args: Any, **kwargs: Any) -> Any:
            with _recording(self):
                return super().encode_from_tokens_scheduled(*args, **kwargs)

    return RecordedCLIP


@contextmanager
def _recording(clip: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for session, encoder in getattr(clip, _ATTRIBUTE):
            stack.enter_context(session.run())
            stack.enter_context(session.call(encoder))
        yield
