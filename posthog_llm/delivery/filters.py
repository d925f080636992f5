"""The user's own last word on an event: `configure(before_capture=...)`."""

from __future__ import annotations

from dataclasses import replace

from ..checks import text
from ..event import Event
from ..faults import interrupts, report
from ..narrowing import is_mapping
from ..privacy import Cleaner
from ..settings import settings


class Refused(Exception):
    """An event is not to leave; its text is the reason."""

    def __init__(self, reason: str, *, wanted: bool = False) -> None:
        super().__init__(reason)
        self.wanted = wanted
        """Whether that is what the user asked for."""


def filtered(event: Event) -> Event:
    """Return the event as `before_capture` leaves it. Raises `Refused` where it may not leave."""
    before_capture = settings().before_capture
    if before_capture is None:
        return event
    try:
        answer = before_capture(
            {
                "event": event.name,
                "uuid": event.uuid,
                "distinct_id": event.distinct_id,
                "timestamp": event.timestamp,
                "properties": event.properties,
                "groups": dict(event.groups or {}),
            }
        )
        if answer is None:
            raise Refused("before_capture", wanted=True)
        if not is_mapping(answer):
            raise TypeError(f"before_capture returned {type(answer).__name__}")
        who = answer["distinct_id"]
        left = replace(
            event,
            name=str(answer["event"]),
            distinct_id=text("distinct_id", "" if who is None else who),
            timestamp=answer["timestamp"],
            properties={
                # It may have put anything there.
                str(name): Cleaner(keep_media=True).plain(value)
                for name, value in answer["properties"].items()
            },
            groups=dict(answer.get("groups") or {}) or None,
        )
        return left if left.distinct_id else left.of_nobody()
    except Refused:
        raise
    except Exception as error:
        if interrupts(error):
            raise
        report("before_capture", error)
        raise Refused("before_capture_failed") from None
