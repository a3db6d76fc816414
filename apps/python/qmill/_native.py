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
from typing import Any

import torch
from torch.utils import dlpack

from qmill_command.installation import prefix
from qmill.errors import error_of

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


def _take(reply: int, index: int, output: Mapping[str, Any]) -> torch.Tensor:
    address = _library.qmill_take_tensor(reply, index)
    if not address:
        raise MemoryError
    tensor: torch.Tensor = dlpack.from_dlpack(_capsule_new(address, _FULL, None))
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

    def __call__(self, name: str, request: Mapping[str, Any], tensors: Sequence[torch.Tensor] = ()) -> Reply:
        def report(state: Any, _context: Any) -> None:
            now = state.contents
            try:
                if self._progress is not None and self._failure is None:
                    self._progress(Progress(now.layers_done, now.layers, now.bytes_done, now.bytes))
            except BaseException as failure:  # raised again below, by the thread of the call
                self._failure = failure
                self.cancel()

        text = json.dumps(request, allow_nan=False).encode()
        function = _ProgressFunction(report) if self._progress is not None else _ProgressFunction()
        capsules = [tensor.__dlpack__() for tensor in tensors]  # each frees its tensor, unless it is used
        given = (ctypes.c_void_p * len(capsules))(*(_capsule_pointer(capsule, _FULL) for capsule in capsules))
        for capsule in capsules:
            _capsule_set_name(capsule, _USED)
        reply = _library.qmill_call(name.encode(), text, given, len(capsules), function, None, self._cancel)
        if not reply:
            raise MemoryError
        try:
            said = _library.qmill_reply_text(reply)
            if not said:
                raise MemoryError
            answer = json.loads(said.decode("utf-8", "replace"))
            if self._failure is not None:
                raise self._failure
            if _library.qmill_reply_is_error(reply):
                raise error_of(answer)
            outputs = answer.get("outputs", []) if isinstance(answer, dict) else []
            return Reply(answer, [_take(reply, index, output) for index, output in enumerate(outputs)])
        finally:
            _library.qmill_free_reply(reply)


class _Worker:
    """A run on a thread of its own, while this one waits.

    Python handles signals on the main thread only, and only while that runs Python code.
    """

    def __init__(self, run: _Run, name: str, request: Mapping[str, Any], tensors: Sequence[torch.Tensor]) -> None:
        self._run = run
        self._call = (name, request, tensors)
        self._thread = threading.Thread(target=self._work, name=f"qmill {name}")
        self._is_abandoned = False
        self._has_begun = False
        self._has_ended = threading.Event()
        self._reply: Reply | None = None
        self._failure: BaseException | None = None
        self._interruption: BaseException | None = None

    def result(self) -> Reply:
        """Runs it. An exception of a signal handler ends the run, and is raised when the run has ended."""
        while True:
            try:
                self._wait()
                break
            except BaseException as error:
                self._interruption = self._interruption or error
        failure = self._interruption or self._failure
        self._interruption = self._failure = None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # or the exception would keep itself, and the tensors, alive
        assert self._reply is not None
        return self._reply

    def _wait(self) -> None:
        """Returns when nothing runs any more. Raises only if a signal comes while another one is taken note of."""
        while True:
            try:
                if self._interruption is None:
                    self._thread.start()
                else:
                    self._is_abandoned = True
                    self._run.cancel()
                # A thread that begins only after it was abandoned does nothing.
                if self._interruption is None or self._has_begun:
                    self._has_ended.wait()
                return
            except BaseException as error:
                self._interruption = self._interruption or error

    def _work(self) -> None:
        self._has_begun = True
        try:
            if not self._is_abandoned:
                self._reply = self._run(*self._call)
        except BaseException as failure:
            self._failure = failure
        finally:
            self._has_ended.set()


def _set_level() -> None:
    for name, level in LEVELS.items():
        if logger.isEnabledFor(level):
            break
    call_at_once("setup_logging", {"level": name})


def call_at_once(name: str, request: Mapping[str, Any]) -> Reply:
    """As `call`, for calls that take no time: without a thread, so also while objects are collected. [any-thread]"""
    return _Run(None)(name, request)


def call(
    name: str,
    request: Mapping[str, Any],
    tensors: Sequence[torch.Tensor] = (),
    *,
    progress: Callable[[Progress], object] | None = None,
) -> Reply:
    """Runs a call and gives its reply back. `tensors` are those of `on_cpu`. Raises QmillError.

    On the main thread, Ctrl-C ends the run cleanly and raises KeyboardInterrupt, and so does whatever another signal
    handler raises. An exception in `progress` ends it, too, and is raised from here. [any-thread]
    """
    _set_level()
    run = _Run(progress)
    if threading.current_thread() is not threading.main_thread():
        return run(name, request, tensors)
    return _Worker(run, name, request, tensors).result()


__all__ = ["LEVELS", "Progress", "Reply", "call", "call_at_once", "logger"]
