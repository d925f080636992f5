"""Traces as trees, which tests compare as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from posthog_llm.testing import CapturedEvent


def title(event: CapturedEvent) -> str:
    """Return what an event is, in a line: `span weather (tool)`, `generation gpt-5`."""
    said = event.properties
    kind = event.event.removeprefix("$ai_")
    failed = " !" if said.get("$ai_is_error") else ""
    if kind in ("generation", "embedding"):
        assert failed or said["$ai_input_tokens"] > 0
        return f"{kind} {said.get('$ai_model')}{failed}"
    type_ = f" ({said['$ai_span_type']})" if "$ai_span_type" in said else ""
    return f"{kind} {said.get('$ai_span_name')}{type_}{failed}"


def trees(events: Iterable[CapturedEvent]) -> list[str]:
    """Return the lines of all traces, indented by depth, in the order in which they began."""
    ordered = sorted(events, key=lambda event: event.timestamp or 0)
    ids = {event.properties["$ai_span_id"] for event in ordered}
    assert len(ids) == len(ordered), "two events are one node"
    below: dict[Any, list[CapturedEvent]] = defaultdict(list)
    for event in ordered:
        parent = event.properties.get("$ai_parent_id")
        below[parent if parent in ids else None].append(event)

    def lines(parent: Any, depth: int) -> list[str]:
        found = []
        for event in below[parent]:
            found.append("  " * depth + title(event))
            found += lines(event.properties["$ai_span_id"], depth + 1)
        return found

    shown = lines(None, 0)
    assert len(shown) == len(ordered), "a circle"
    return shown
