"""Calls into the libraries (apps/python/native/interface.h). Private to our own packages.

A call is a name, a request as JSON and tensors, which cross as DLPack on the CPU. It runs without the GIL.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils import dlpack

from qmill_command.installation import prefix
from qmill.errors import UsageError, error_of

_INTERFACE_VERSION = 1

logger = logging.getLogger("qmill")
# The levels of the libraries, in their order, as levels of `logging`. What they say of every tensor is below logging.DEBUG.
LEVELS = {"DEBUG": 5, "VERBOSE": logging.DEBUG, "NORMAL": logging.INFO, "MINIMAL": logging.WARNING}
_PYTHON_LEVELS = tuple(LEVELS.values())


@dataclass(frozen=True)
class Progress:
    """How far a conversion is: layers, and bytes of the output."""

    layers_done: int
    layers: int
    bytes_done: int
    bytes: int


@dataclass(frozen=True)
class Reply:
    """What a call gave back: JSON, and tensors with the names that the JSON has for them."""

    json: Any
    tensors: list[torch.Tensor]

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {output["name"]: tensor for output, tensor in zip(self.json["outputs"], self.tensors)}


class SupportsDLPack(Protocol):
    """An array of another library, such as NumPy."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, int]: ...


class _Progress(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("layers_done", "layers", "bytes_done", "bytes")]


_ProgressFunction = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Progress), ctypes.c_void_p)
_LogFunction = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p)


def _load() -> ctypes.CDLL:
    path = Path(prefix(torch.__version__)) / "lib" / "libqmill_python.so"
    try:
        library = ctypes.CDLL(str(path))  # LibTorch is loaded already: torch was imported
    except OSError as error:
        raise ImportError(f"qmill cannot load '{path}' with torch {torch.__version__}: {error}") from error
    for name, result, arguments in (
        ("qmill_interface_version", ctypes.c_int, []),
        (
            "qmill_call",
            ctypes.c_void_p,
            [
                ctypes.c_char_p,
                ctypes.c_char_p,
                ctypes.POINTER(ctypes.c_void_p),
                ctypes.c_size_t,
                _ProgressFunction,
                ctypes.c_void_p,
                ctypes.c_void_p,
            ],
        ),
        ("qmill_reply_text", ctypes.c_char_p, [ctypes.c_void_p]),
        ("qmill_reply_is_error", ctypes.c_int, [ctypes.c_void_p]),
        ("qmill_reply_tensor_count", ctypes.c_size_t, [ctypes.c_void_p]),
        ("qmill_take_tensor", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]),
        ("qmill_free_reply", None, [ctypes.c_void_p]),
        ("qmill_new_cancel", ctypes.c_void_p, []),
        ("qmill_cancel", None, [ctypes.c_void_p]),
        ("qmill_free_cancel", None, [ctypes.c_void_p]),
        ("qmill_set_log", None, [_LogFunction]),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    if library.qmill_interface_version() != _INTERFACE_VERSION:
        raise ImportError(f"'{path}' is of another version of qmill than '{__file__}'; install qmill again")
    return library


_library = _load()

_capsule_new = ctypes.pythonapi.PyCapsule_New
_capsule_new.restype = ctypes.py_object
_capsule_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_capsule_set_name = ctypes.pythonapi.PyCapsule_SetName
_capsule_set_name.restype = ctypes.c_int
_capsule_set_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
# A capsule keeps a pointer to its name.
_FULL, _USED = b"dltensor", b"used_dltensor"

_DTYPES = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
}


def _log(level: int, text: bytes) -> None:
    logger.log(_PYTHON_LEVELS[level], text.decode("utf-8", "replace"))


_log_function = _LogFunction(_log)  # the library keeps a pointer to it
_library.qmill_set_log(_log_function)
# No message may reach Python while it shuts down.
atexit.register(lambda: _library.qmill_set_log(_LogFunction()))


def as_tensor(name: str, value: torch.Tensor | SupportsDLPack) -> torch.Tensor:
    """A tensor of torch, from one or from an array that speaks DLPack. Raises UsageError for anything else."""
    if isinstance(value, torch.Tensor):
        return value
    if hasattr(value, "__dlpack__"):
        return dlpack.from_dlpack(value)
    raise UsageError(f"{name} is a {type(value).__name__}, expected a torch.Tensor or an array with __dlpack__")


def _give(tensor: torch.Tensor) -> int:
    """The address of a DLManagedTensor, which the callee takes over."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        tensor = tensor.float()  # exact; DLPack may not know the type
    capsule = tensor.__dlpack__()
    address = _capsule_pointer(capsule, _FULL)
    _capsule_set_name(capsule, _USED)
    return int(address)


def _take(reply: int, index: int, output: Mapping[str, Any]) -> torch.Tensor:
    tensor: torch.Tensor = dlpack.from_dlpack(_capsule_new(_library.qmill_take_tensor(reply, index), _FULL, None))
    dtype = _DTYPES.get(output["dtype"])
    return tensor if dtype is None else tensor.view(dtype).reshape(output["shape"])


class _Run:
    """One call, which another thread may end."""

    def __init__(self, progress: Callable[[Progress], object] | None) -> None:
        self._cancel = _library.qmill_new_cancel()
        self._progress = progress
        self._failure: BaseException | None = None

    def __del__(self) -> None:
        _library.qmill_free_cancel(self._cancel)

    def cancel(self) -> None:
        _library.qmill_cancel(self._cancel)

    def __call__(self, name: str, request: Mapping[str, Any], tensors: Sequence[torch.Tensor]) -> Reply:
        def report(state: Any, _context: Any) -> None:
            now = state.contents
            try:
                if self._progress is not None and self._failure is None:
                    self._progress(Progress(now.layers_done, now.layers, now.bytes_done, now.bytes))
            except BaseException as failure:  # raised again below, by the thread of the call
                self._failure = failure
                self.cancel()

        text = json.dumps(request).encode()
        given = (ctypes.c_void_p * len(tensors))(*(_give(tensor) for tensor in tensors))
        function = _ProgressFunction(report) if self._progress is not None else _ProgressFunction()
        reply = _library.qmill_call(name.encode(), text, given, len(tensors), function, None, self._cancel)
        if not reply:
            raise MemoryError
        try:
            answer = json.loads(_library.qmill_reply_text(reply).decode("utf-8", "replace"))
            if self._failure is not None:
                raise self._failure
            if _library.qmill_reply_is_error(reply):
                raise error_of(answer)
            outputs = answer.get("outputs", []) if isinstance(answer, dict) else []
            return Reply(answer, [_take(reply, index, output) for index, output in enumerate(outputs)])
        finally:
            _library.qmill_free_reply(reply)


def _set_level() -> None:
    for name, level in LEVELS.items():
        if logger.isEnabledFor(level):
            break
    request = json.dumps({"level": name}).encode()
    _library.qmill_free_reply(
        _library.qmill_call(b"setup_logging", request, None, 0, _ProgressFunction(), None, None)
    )


def call(
    name: str,
    request: Mapping[str, Any],
    tensors: Sequence[torch.Tensor] = (),
    *,
    progress: Callable[[Progress], object] | None = None,
) -> Reply:
    """Runs a call and gives its reply back. Raises QmillError.

    On the main thread, Ctrl-C ends the run cleanly and raises KeyboardInterrupt. An exception in `progress` ends it, too,
    and is raised from here. [any-thread]
    """
    _set_level()
    run = _Run(progress)
    if threading.current_thread() is not threading.main_thread():
        return run(name, request, tensors)

    # Python handles signals on the main thread only, and only while that runs Python code.
    result: list[Reply] = []
    failure: list[BaseException] = []

    done = threading.Event()

    def work() -> None:
        try:
            result.append(run(name, request, tensors))
        except BaseException as error:
            failure.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name=f"qmill {name}").start()
    interrupt: KeyboardInterrupt | None = None
    while not done.is_set():
        try:
            done.wait()
        except KeyboardInterrupt as signal:
            interrupt = signal
            run.cancel()
    if interrupt is not None:
        raise interrupt
    if failure:
        raise failure[0]
    return result[0]


__all__ = ["LEVELS", "Progress", "Reply", "SupportsDLPack", "as_tensor", "call", "logger"]
