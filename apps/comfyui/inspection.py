"""The node that says what a model file holds, and whether ComfyUI loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import files, text
from .host import qmill, show_on_node

QUESTIONS = {"inspect": text.inspection, "verify": text.verification}


class Inspect:
    """Asks qmill about a file of a model folder."""

    DESCRIPTION = "inspect: what a file holds, and how it was made. verify: whether ComfyUI loads it as it is meant."
    CATEGORY = "qmill"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("text",)
    FUNCTION = "ask"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model_file": (files.model_choices(files.ALL_FOLDERS), {"tooltip": "the file to look at"}),
                "question": (list(QUESTIONS), {"default": "inspect"}),
            },
            "optional": {
                "path": ("STRING", {"forceInput": True, "tooltip": "from qmill convert; then model_file is not used"}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        """Never equal to itself: the file may have changed."""
        return float("nan")

    def ask(
        self, model_file: str, question: str, path: str | None = None, node_id: str | None = None
    ) -> dict[str, Any]:
        """Returns the answer as text. Raises what qmill.inspect and qmill.verify raise."""
        file = files.model_path(model_file) if path is None else Path(path)
        answer = QUESTIONS[question](getattr(qmill(), question)(file))
        show_on_node(node_id, answer)
        return {"ui": {"text": [answer]}, "result": (answer,)}
