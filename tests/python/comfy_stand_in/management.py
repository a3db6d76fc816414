"""Of ComfyUI's `comfy.model_management` and `comfy.utils`: interruption, and the bar of a node."""

from __future__ import annotations

_interrupted = False
bars: list[ProgressBar] = []


class InterruptProcessingException(Exception):
    pass


def reset() -> None:
    """No interruption, no bars."""
    interrupt_current_processing(False)
    bars.clear()


def interrupt_current_processing(value: bool = True) -> None:
    global _interrupted
    _interrupted = value


def throw_exception_if_processing_interrupted() -> None:
    global _interrupted
    if _interrupted:
        _interrupted = False  # one interruption ends one graph
        raise InterruptProcessingException()


class ProgressBar:
    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total = total
        self.node_id = node_id
        self.shown: list[tuple[int, int]] = []
        bars.append(self)

    def update_absolute(self, value: int, total: int | None = None, preview: object = None) -> None:
        if total is not None:
            self.total = total
        self.shown.append((min(value, self.total), self.total))
