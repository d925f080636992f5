"""The one guard around our own code: a fault in telemetry never reaches the user's call.

What the application itself raises inside our code, such as a timeout, is not a fault: see
`is_the_programs`. Faults are counted, and logged once per kind. In our tests any count is a
failure.
"""

from __future__ import annotations

import functools
import inspect
import logging
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST = 1 << 20
"""Most characters of an exception's text that are kept."""
_SIGNALS = signal.valid_signals()
_OURS = sys.stdlib_module_names | {"posthog_llm", "posthog", "wrapt"}
"""Packages that are ours, or that our code calls itself."""
log = logging.getLogger("posthog_llm")
counts: Counter[str] = Counter()
"""How often each kind of fault happened in this process, by `where:ExceptionClass`."""


def report(where: str, error: BaseException) -> None:
    """Count an internal fault and log its first occurrence, without its text.

    The text may contain the caller's content, so only the class is logged; the traceback follows
    at debug level.
    """
    kind = f"{where}:{type(error).__name__}"
    counts[kind] += 1
    if counts[kind] == 1:
        warn("%s failed with %s; calls are unaffected", where, kind)
        _log(logging.DEBUG, where, exc_info=error)


def warn(message: str, *args: object) -> None:
    """Log a warning. An application's log handler that raises harms neither call nor thread."""
    _log(logging.WARNING, message, *args)


@functools.lru_cache(maxsize=64)
def warn_once(text: str) -> None:
    """Log a warning, once for each text."""
    warn("%s", text)


def forget() -> None:
    """Forget what was counted, and which warnings were logged."""
    counts.clear()
    warn_once.cache_clear()


def _log(level: int, message: str, *args: object, **more: Any) -> None:
    try:
        log.log(level, f"posthog_llm: {message}", *args, **more)
    except Exception as error:  # from an application's log handler: there is nowhere to report it
        if is_the_programs(error):
            raise


def is_the_programs(error: BaseException) -> bool:
    """Whether the application itself raised this inside our code, such as its own timeout.

    Either a signal handler did (see `_is_handlers`), or another thread, with
    `PyThreadState_SetAsyncExc`: that makes an instance, without arguments, of an application's
    class, and its traceback contains no third-party code.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if _is_handlers(frames):
        return True
    if error.args or _package(type(error).__module__) in _OURS:
        return False
    return all(_package(frame.f_globals.get("__name__")) in _OURS for frame in frames)


def interrupts(error: BaseException) -> bool:
    """Whether the application was interrupted while its main thread did the worker's work.

    The main thread does so if there is no worker: none could start, or the process is ending.
    Signals arrive only in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    return isinstance(error, KeyboardInterrupt) or is_the_programs(error)


def _is_handlers(frames: list[FrameType]) -> bool:
    """Whether one of these frames, outermost first, is a signal handler's.

    Python calls a handler with the frame that it interrupts, whatever kind of object it is and
    even if it has been replaced; a handler that has released that argument is known by its code.
    """
    codes = {_code(signal.getsignal(number)) for number in _SIGNALS} - {None}
    above: list[FrameType] = []
    for frame in frames:
        if frame.f_code in codes or any(_holds(value, above) for value in _arguments(frame)):
            return True
        above.append(frame)
    return False


def _arguments(frame: FrameType) -> list[Any]:
    """Return the arguments of a frame that is not ours; our frames are not handlers."""
    if _package(frame.f_globals.get("__name__")) == "posthog_llm":
        return []
    code, found = frame.f_code, frame.f_locals
    count = code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS) + code.co_kwonlyargcount
    return [found[name] for name in code.co_varnames[:count] if name in found]


def _holds(value: Any, frames: list[FrameType]) -> bool:
    values: tuple[Any, ...] = value if type(value) is tuple else (value,)  # pyright: ignore[reportUnknownVariableType]
    return any(item is frame for item in values for frame in frames)


def _code(handler: Any) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if isinstance(handler, MethodType):
        handler = handler.__func__
    if callable(handler) and not isinstance(handler, FunctionType):
        handler = type(handler).__call__  # pyright: ignore[reportUnknownVariableType]
    return handler.__code__ if isinstance(handler, FunctionType) else None


def _package(module: object) -> str:
    return str(module).partition(".")[0]


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """Make `function` return `None` instead of raising an `Exception`."""
    return contained(function, report)


def contained(
    function: Callable[P, R], failed: Callable[[str, Exception], object]
) -> Callable[P, R | None]:
    """Make `function` call `failed` with its name and the `Exception` instead of raising."""

    @functools.wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if is_the_programs(error):
                raise
            failed(function.__qualname__, error)
            return None

    return safe


def attribute(error: Any, name: str) -> Any:
    """Return an exception's attribute; `None` if it has none, or raises."""
    try:
        return getattr(error, name, None)
    except Exception as failed:  # as in `text_of`
        if is_the_programs(failed):
            raise
        return None


def text_of(error: BaseException) -> str | None:
    """Return an exception's text; `None` if its own code raises."""
    try:
        return str(error)[:_LONGEST]
    except Exception as failed:  # it is the user's class, on the user's thread
        if is_the_programs(failed):
            raise
        return None
