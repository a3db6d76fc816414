"""The node that says how far a recording is."""

from __future__ import annotations

from typing import Any

from .host import show_on_node
from .session import Session
from .widgets import ANY


class RecordingStatus:
    """Runs after the sampler whose output is `after`, and passes the file of rows on to qmill convert."""

    DESCRIPTION = "Says how many rows of how many layers are recorded. Connect the sampler's output to 'after'."
    CATEGORY = "qmill"
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("status", "rows_file")
    FUNCTION = "status"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "recording": ("QMILL_RECORDING", {"tooltip": "from a record node"}),
                "after": (ANY, {"tooltip": "the output of the sampler, or of the text encoder's node"}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        """Never equal to itself: the recording may have grown."""
        return float("nan")

    def status(self, recording: Session, after: Any, node_id: str | None = None) -> dict[str, Any]:
        """Returns the status line, and the path of the file of rows."""
        show_on_node(node_id, recording.status)
        return {"ui": {"text": [recording.status]}, "result": (recording.status, str(recording.settings.file))}
