"""What the nodes use of ComfyUI and of qmill. Both are imported when a node runs, so the pack imports without them.

Thread-safety: ComfyUI runs the nodes of a prompt in one thread; nothing here keeps state.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from types import ModuleType

logger = logging.getLogger("qmill.comfyui")


def comfyui(name: str) -> ModuleType:
    """The module `name` of ComfyUI, such as `comfy.utils` or `folder_paths`.

    Raises RuntimeError outside of ComfyUI.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"this node runs inside ComfyUI only: the module '{name}' is missing ({error})"
        ) from error


def qmill() -> ModuleType:
    """The package qmill.

    Raises RuntimeError if it is not installed in the Python that runs ComfyUI.
    """
    if importlib.util.find_spec("qmill") is None:
        raise RuntimeError(
            f"the Python package 'qmill' is not installed in the Python that runs ComfyUI ({sys.executable}): "
            "build a wheel of qmill with './dev wheel' in its sources, install that there with "
            f"'{sys.executable} -m pip install dist/qmill-VERSION.whl' and start ComfyUI again (docs/comfyui.md)"
        )
    return importlib.import_module("qmill")


def show_on_node(node_id: str | None, text: str) -> None:
    """Writes `text` to the log and, where a browser is connected, on the node `node_id` of the graph."""
    logger.info("%s", text)
    server = sys.modules.get("server")  # programs that run graphs without a server have not loaded it
    if node_id is not None and server is not None:
        server.PromptServer.instance.send_progress_text(text, node_id)
