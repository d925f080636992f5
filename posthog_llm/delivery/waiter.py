"""Somebody who waits for what was captured before."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Waiter:
    """Put on the call queue, so that it stands behind what it waits for."""

    client: Any = None
    """Wait until this client has its events; `None`: until every event has arrived."""
    until: float | None = None
    number: int | None = None
    """The last event that is waited for; `None` until the calls before it have been read."""
    done: threading.Event = field(default_factory=threading.Event)

    def left(self) -> float:
        """Return the seconds that it still waits; an hour where there is no limit."""
        return 3600.0 if self.until is None else max(0.0, self.until - time.monotonic())
