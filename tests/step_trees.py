"""A trace as a tree, for tests of frameworks: who made which call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from posthog_llm.testing import CapturedEvent

Tree = tuple[Any, ...]


def trees(events: Iterable[CapturedEvent]) -> list[Tree]:
    """Return (label, child, ...) for each event that has no parent here, oldest first.

    A label has the event, its name or model, and its type: `span weather tool`.
    """
    found = sorted(events, key=lambda event: (event.timestamp, event.event == "$ai_generation"))
    ids = {event.properties.get("$ai_span_id") for event in found}
    tops = [e for e in found if e.properties.get("$ai_parent_id") not in ids]
    assert len({event.properties["$ai_trace_id"] for event in found}) == len(tops)
    return [_tree(top, found) for top in tops]


def _tree(event: CapturedEvent, events: list[CapturedEvent]) -> Tree:
    own, told = event.properties.get("$ai_span_id"), event.properties
    name = told.get("$ai_span_name") or told.get("$ai_model")
    words = (event.event.removeprefix("$ai_"), name, told.get("$ai_span_type"))
    below = [e for e in events if own and e.properties.get("$ai_parent_id") == own]
    return (" ".join(str(word) for word in words if word), *(_tree(e, events) for e in below))


def named(events: Iterable[CapturedEvent], name: str) -> dict[str, Any]:
    """Return the properties of the only event of a name."""
    (found,) = [e.properties for e in events if e.properties.get("$ai_span_name") == name]
    return dict(found)
