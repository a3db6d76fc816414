"""qmill for ComfyUI: link or copy this folder into ComfyUI's `custom_nodes`."""

from __future__ import annotations

from .convert import Convert
from .inspection import Inspect
from .record_clip import RecordClip
from .record_model import RecordModel
from .status import RecordingStatus

NODE_CLASS_MAPPINGS = {
    "QmillRecordModel": RecordModel,
    "QmillRecordClip": RecordClip,
    "QmillRecordingStatus": RecordingStatus,
    "QmillConvert": Convert,
    "QmillInspect": Inspect,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "QmillRecordModel": "qmill record",
    "QmillRecordClip": "qmill record text encoder",
    "QmillRecordingStatus": "qmill recording status",
    "QmillConvert": "qmill convert",
    "QmillInspect": "qmill inspect",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
