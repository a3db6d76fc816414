"""Compiled code runs uncompiled while any recording runs: it ignores hooks that it was not compiled with."""

from __future__ import annotations

import threading
from typing import Any

import torch

_lock = threading.Lock()
_users = 0
_stance: Any = None


def hold_eager() -> None:
    """Makes compiled code of this process run uncompiled until `release_eager` was called as often. [any-thread]"""
    global _users, _stance
    with _lock:
        if _users == 0:
            _stance = torch.compiler.set_stance("force_eager")
        _users += 1


def release_eager() -> None:
    """Ends one `hold_eager`. [any-thread]"""
    global _users, _stance
    with _lock:
        _users -= 1
        if _users == 0:
            _stance.__exit__(None, None, None)
            _stance = None
