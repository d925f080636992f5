"""Traces as trees, which tests compare as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import posthog_llm
from posthog_llm.testing import CapturedEvent, MemorySink

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"
Tree = tuple[Any, ...]


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
    below, ordered = _by_parent(events)
    assert len({event.properties["$ai_span_id"] for event in ordered}) == len(ordered)

    def lines(parent: Any, depth: int) -> list[str]:
        found = []
        for event in below[parent]:
            found.append("  " * depth + title(event))
            found += lines(event.properties["$ai_span_id"], depth + 1)
        return found

    shown = lines(None, 0)
    assert len(shown) == len(ordered), "a circle"
    return shown


def shown(sink: MemorySink) -> list[str]:
    """Return the lines of all traces that were captured, once all are."""
    assert posthog_llm.flush(10)
    return trees(sink.events)


def check_agent_as_a_tool(sink: MemorySink) -> None:
    """Check a run of `helper`, whose tool `expert` is an agent: in a trace `request` of ours."""
    events = sink.wait_for(7)
    assert shown(sink) == [
        "trace request",
        "  span helper (agent)",
        "    generation gpt-4o",
        "    span expert (tool)",
        "      span expert (agent)",
        "        generation gpt-4o",
        "    generation gpt-4o",
    ]
    assert {event.distinct_id for event in events} == {"user-1"}
    assert {event.properties["$ai_session_id"] for event in events} == {"mine"}


def check_failed_tool(sink: MemorySink) -> None:
    """Check a run of `helper`, whose tool fails in a span of ours: the agent goes on."""
    sink.wait_for(5)
    assert shown(sink) == [
        "trace helper (agent)",
        "  generation gpt-4o",
        "  span weather (tool) !",
        "    span look up !",
        "  generation gpt-4o",
    ]
    assert named(sink.events, "weather")["$ai_error"] == "no such city"


def picture(framework: str) -> list[str]:
    """Return the lines of the tree in docs/frameworks.md, in the section of a framework."""
    _, _, section = PAGE.read_text().partition(f"\n### {framework}\n")
    return section.partition("```text\n")[2].partition("\n```")[0].splitlines()


def nested_trees(events: Iterable[CapturedEvent]) -> list[Tree]:
    """Return (label, child, ...) for each event that has no parent here, oldest first.

    A label has the event, its name or model, and its type: `span weather tool`.
    """
    below, ordered = _by_parent(events)
    assert len({event.properties["$ai_trace_id"] for event in ordered}) == len(below[None])

    def tree(event: CapturedEvent) -> Tree:
        own, said = event.properties.get("$ai_span_id"), event.properties
        name = said.get("$ai_span_name") or said.get("$ai_model")
        words = (event.event.removeprefix("$ai_"), name, said.get("$ai_span_type"))
        return (" ".join(str(word) for word in words if word), *map(tree, below[own or ""]))

    return [tree(event) for event in below[None]]


def named(events: Iterable[CapturedEvent], name: str) -> dict[str, Any]:
    """Return the properties of the only event of a name."""
    (found,) = [e.properties for e in events if e.properties.get("$ai_span_name") == name]
    return dict(found)


def _by_parent(
    events: Iterable[CapturedEvent],
) -> tuple[dict[Any, list[CapturedEvent]], list[CapturedEvent]]:
    """Return the events by their parent's id (`None`: not here), and all, oldest first."""
    ordered = sorted(events, key=lambda event: (event.timestamp, event.event == "$ai_generation"))
    ids = {event.properties.get("$ai_span_id") for event in ordered}
    below: dict[Any, list[CapturedEvent]] = defaultdict(list)
    for event in ordered:
        parent = event.properties.get("$ai_parent_id")
        below[parent if parent in ids else None].append(event)
    return below, ordered
