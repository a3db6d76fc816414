"""The hook on a module whose inputs are recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class LayerHook:
    """A forward pre-hook, with keyword arguments, that gives the input of one module to `observe`.

    Copies and pickles of a module have its hooks, too. So the hook is bound to the module that it was registered on,
    and a copy or pickle of the hook does nothing.
    """

    def __init__(
        self, module: nn.Module | None = None, observe: Callable[[Tensor | None], None] | None = None
    ) -> None:
        """`observe` gets the input, or None if a call has no tensor as its input."""
        self._module = module
        self._observe = observe

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._observe is None or module is not self._module:
            return
        x = args[0] if args else kwargs.get("input", kwargs.get("x"))
        self._observe(x if isinstance(x, Tensor) else None)

    def __reduce__(self) -> tuple[type[LayerHook], tuple[()]]:
        return LayerHook, ()
