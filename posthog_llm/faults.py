"""The one guard around our own code: a fault in telemetry never reaches the user's call.

A fault is counted, and logged once a kind. In our own tests any count is a failure.
"""

from __future__ import annotations

import functools
import logging
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SIGNALS = signal.valid_signals()
log = logging.getLogger("posthog_llm")
counts: Counter[str] = Counter()
"""How often each kind of fault happened in this process, by `where:ExceptionClass`."""


def report(where: str, error: BaseException) -> None:
    """Count a fault of ours and log its first occurrence, without its text.

    The text may hold a piece of the caller's content, so only the class is logged; the
    traceback follows at debug level.
    """
    kind = f"{where}:{type(error).__name__}"
    counts[kind] += 1
    if counts[kind] == 1:
        log.warning("posthog_llm: %s failed with %s; calls are unaffected", where, kind)
        log.debug("posthog_llm: %s", where, exc_info=error)


def is_from_signal(error: BaseException) -> bool:
    """Whether a signal's handler raised this amid our lines: a time limit of the program's own."""
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in _SIGNALS}
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code in handlers for frame, _ in frames)


def guarded(function: Callable[P, R]) -> Callable[P, R | None]:
    """Make `function` answer `None` where it would raise an `Exception`."""
    return contained(function, report)


def contained(
    function: Callable[P, R], failed: Callable[[str, Exception], object]
) -> Callable[P, R | None]:
    """Make `function` call `failed` with its name and the `Exception` that it would raise."""

    @functools.wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if is_from_signal(error):
                raise
            failed(function.__qualname__, error)
            return None

    return safe
