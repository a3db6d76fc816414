"""How much is logged, and where."""

import logging
from typing import Final

from qmill._native import LEVELS
from qmill.errors import UsageError

_logger: Final = logging.getLogger("qmill")


def setup_logging(level: str) -> None:
    """Sets how much the logger "qmill" says, for the whole process. Any thread may call it.

    If nothing handles that logger's messages yet, they go to stderr from now on.

    Args:
        level: "DEBUG" (every tensor), "VERBOSE" (every layer), "NORMAL" or "MINIMAL" (warnings).

    Raises:
        UsageError: Another level.
    """
    if not isinstance(level, str) or level not in LEVELS:
        raise UsageError(f"level is {level!r}; expected one of {', '.join(LEVELS)}")
    _logger.setLevel(LEVELS[level])
    if not _is_handled(_logger):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        _logger.addHandler(handler)


def _is_handled(logger: logging.Logger) -> bool:
    """Whether messages of `logger` arrive somewhere: at a handler of its own, or of a logger above it."""
    current: logging.Logger | None = logger
    while current is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return False
