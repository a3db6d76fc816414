"""A bar for people who watch: tqdm, if it is installed and standard error is a terminal."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qmill._native import Progress
from qmill.errors import UsageError

ProgressCallback = Callable[[Progress], object]


@contextmanager
def shown(progress: ProgressCallback | None, title: str) -> Iterator[ProgressCallback | None]:
    """What to call: `progress` as it is; a bar if it is None and somebody watches; else nothing.

    Raises UsageError for what cannot be called, and for async functions: nobody would await their results.
    """
    if progress is not None and (not callable(progress) or _is_async(progress)):
        found = "an async function" if callable(progress) else f"of type {type(progress).__name__}"
        raise UsageError(f"progress is {found}; expected a function that takes a Progress")
    bar = _bar(title) if progress is None and _is_watched() else None
    if bar is None:
        yield progress
        return

    def update(state: Progress) -> None:
        bar.total = state.bytes
        bar.set_postfix_str(f"{state.layers_done}/{state.layers} layers", refresh=False)
        bar.update(state.bytes_done - bar.n)

    with bar:
        yield update


def _is_async(function: object) -> bool:
    every = (function, getattr(function, "__call__", None))
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in every)


def _is_watched() -> bool:
    """Whether standard error is a terminal. Programs without a console have none, and it may be closed."""
    return sys.stderr is not None and not getattr(sys.stderr, "closed", False) and sys.stderr.isatty()


def _bar(title: str) -> Any:
    try:
        tqdm = importlib.import_module("tqdm.auto").tqdm
    except ImportError:
        return None
    return tqdm(desc=title, unit="B", unit_scale=True, leave=False)
