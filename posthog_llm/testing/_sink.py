"""A replacement for a `posthog` client that keeps events in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class CapturedEvent:
    """One event, as it would have been passed to a `posthog` client."""

    event: str
    distinct_id: str | None
    properties: Mapping[str, Any]
    timestamp: datetime | None
    """When the call started, UTC."""
    uuid: str | None
    groups: Mapping[str, Any] = field(default_factory=dict[str, Any])


class MemorySink:
    """Pass it as `posthog_client`, then read `events`."""

    def __init__(self, *, privacy_mode: bool = False) -> None:
        self.privacy_mode = privacy_mode
        self._events: list[CapturedEvent] = []

    def capture(
        self,
        event: str,
        *,
        distinct_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        timestamp: datetime | None = None,
        uuid: str | None = None,
        groups: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Take an event as `posthog.Posthog.capture` does. Returns its uuid."""
        self._events.append(
            CapturedEvent(event, distinct_id, properties or {}, timestamp, uuid, groups or {})
        )
        return uuid

    @property
    def events(self) -> list[CapturedEvent]:
        """The events of every call that has ended so far."""
        from .._delivery.worker import worker

        worker.flush(60.0)  # immediate if nothing is queued; thousands of events take a while
        return list(self._events)

    def wait_for(self, count: int) -> list[CapturedEvent]:
        """Return the events, which must be `count`. Raises `AssertionError` otherwise."""
        found = self.events
        if len(found) != count:
            raise AssertionError(f"{len(found)} events instead of {count}: {found}")
        return found
