"""The end of a test: nothing of it is left for the next."""

from __future__ import annotations

from .. import _faults as faults
from .. import _roots as roots
from .._delivery.worker import worker
from .._instrumentation import uninstrument
from .._observe import stream_usage
from .._settings import forget as forget_settings


def reset(timeout: float = 10.0) -> None:
    """Begin anew, as a process that has captured nothing yet: for a fixture of your tests.

    Delivers what was captured before; what takes longer than `timeout` seconds is lost. Then what
    `configure` set is as the environment has it, `instrument` is undone, `stats` counts from zero,
    and what sampling drew for a trace is forgotten. Clients and blocks that exist go on.
    """
    worker.reset(timeout)
    uninstrument()
    forget_settings()
    roots.forget()
    stream_usage.forget()
    faults.counts.clear()
