"""What the node pack uses of ComfyUI, with the same names, arguments and order of calls, and nothing else.

`installed` puts it where `import comfy.utils` and the like find it. The classes and functions follow ComfyUI 0.3.64 and
0.8.0: which wrapper is called around what, what a clone shares with its original, when an interruption is raised.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from . import folders, management, patching, server

PACK = Path(__file__).resolve().parents[3] / "apps" / "comfyui"


def load_pack() -> ModuleType:
    """The node pack, imported as ComfyUI imports a folder of custom_nodes: from its path, without a parent package."""
    name = "qmill_node_pack"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def installed(root: Path) -> Iterator[None]:
    """ComfyUI with its models and output folders below `root`, while the body of the `with` statement runs."""
    package = ModuleType("comfy")
    package.__path__ = []
    modules: dict[str, Any] = {
        "comfy": package,
        "comfy.patcher_extension": patching,
        "comfy.utils": management,
        "comfy.model_management": management,
        "folder_paths": folders,
        "server": server,
    }
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    folders.use(root)
    server.PromptServer.instance = server.PromptServer()
    management.reset()
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
