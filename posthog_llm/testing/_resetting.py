"""The end of a test: leaves nothing for the next one."""

from __future__ import annotations

from .. import _faults as faults
from .. import _roots as roots
from .._delivery.worker import worker
from .._frameworks import registry as frameworks
from .._instrumentation import uninstrument
from .._observe import stream_usage
from .._settings import forget as forget_settings


def reset(timeout: float = 10.0) -> None:
    """Start over like a process that has captured nothing yet; use it in a fixture.

    Delivers what was captured before; what takes longer than `timeout` seconds is lost. Then
    settings are those of the environment again, `instrument` is undone, `stats` counts from zero,
    and sampling decisions for traces are forgotten. Existing clients and blocks keep working.
    """
    worker.reset(timeout)
    uninstrument()
    forget_settings()
    frameworks.forget()
    roots.forget()
    stream_usage.forget()
    faults.forget()
