"""The exceptions of this package: one class per kind of failure, with the sentence that the command prints."""

from __future__ import annotations

from typing import Any


class QmillError(Exception):
    """Base of all errors. `str(error)` is one line: where, what was found, what was expected, what to do.

    Attributes:
        message: What was found and what was expected.
        advice: What to do about it; may be empty.
        where: Where it happened, the innermost place first ("tensor 'a.weight'").
    """

    def __init__(self, text: str, *, message: str = "", advice: str = "", where: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.message = message or text
        self.advice = advice
        self.where = where


class UsageError(QmillError, ValueError):
    """An option or a name that does not exist, or a value that is not allowed."""


class InputError(QmillError):
    """A file or a tensor that is not what it claims to be."""


class UnsupportedError(QmillError):
    """A valid request that this format, quantizer or loader cannot serve."""


class NumericError(QmillError):
    """Values that cannot be computed with: NaN, infinity, overflow."""


class FileError(QmillError, OSError):
    """The operating system refused."""


class PluginError(QmillError):
    """A plugin is missing, was refused, or broke its contract."""


class QualityError(QmillError):
    """A layer is below `fail_below`. Nothing was written."""


class CancelledError(QmillError):
    """The run was ended before it was done. Nothing was written."""


class InternalError(QmillError):
    """A defect of qmill."""


_KINDS: dict[str, type[QmillError]] = {
    "usage": UsageError,
    "input": InputError,
    "unsupported": UnsupportedError,
    "numeric": NumericError,
    "io": FileError,
    "plugin": PluginError,
    "quality": QualityError,
    "cancelled": CancelledError,
}


def error_of(reply: dict[str, Any]) -> QmillError:
    """The exception that a failed call stands for."""
    kind = _KINDS.get(reply["kind"], InternalError)
    return kind(reply["text"], message=reply["message"], advice=reply["advice"], where=tuple(reply["where"]))
