"""The Responses API: create, compact, background responses, and their streams.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..exchange import Exchange, Failure
from ..narrowing import is_dict, is_list, is_mapping
from ..record import Answered, Asked
from . import usage
from .chat import as_prompt, failure, held, text_or_none
from .sse import Event, Folded, append, joined, parse

_NOT_PARAMETERS = frozenset({"input", "model", "tools", "instructions"})
_TERMINAL = frozenset(
    {"response.completed", "response.failed", "response.incomplete", "response.cancelled"}
)
_CONTENT = (
    b'.delta"',
    b"response.image_generation_call.partial_image",
    b'"response.output_item.done"',
)


def asked(body: Mapping[str, Any], exchange: Exchange) -> Asked:
    prompt = as_prompt(body.get("input"))
    instructions = body.get("instructions")
    if instructions:
        items = prompt if is_list(prompt) else []
        prompt = [{"role": "system", "content": instructions}, *items]
    return Asked(
        model=text_or_none(body.get("model")),
        input=prompt,
        tools=body.get("tools"),
        parameters={k: v for k, v in body.items() if k not in _NOT_PARAMETERS},
    )


def answered(body: Mapping[str, Any], provider: str) -> Answered:
    status = body.get("status")
    raw = body.get("output")
    output = [item for item in raw if is_mapping(item)] if is_list(raw) else []
    model = text_or_none(body.get("model"))
    counted = usage.read(body.get("usage"), provider, model)
    searches = sum(_is_search(item) for item in output)
    if searches and counted.web_searches is None:
        counted.web_searches = searches
    return Answered(
        model=model,
        output=[_shown(item) for item in output] or None,
        usage=counted,
        stop_reason=_stop_reason(body),
        service_tier=text_or_none(body.get("service_tier")),
        response_id=text_or_none(body.get("id")),
        failure=_failure(body),
        cancelled=status == "cancelled",
        pending=status in ("queued", "in_progress"),
        background=body.get("background") is True,
        elapsed=_elapsed(body),
    )


def _stop_reason(body: Mapping[str, Any]) -> str | None:
    details = body.get("incomplete_details")
    reason = details.get("reason") if is_mapping(details) else None
    return text_or_none(reason) or text_or_none(body.get("status"))


def _failure(body: Mapping[str, Any]) -> Failure | None:
    found = failure(body.get("error"))
    if found is None and body.get("status") == "failed":
        found = Failure(type="APIError")
    return found


def _elapsed(body: Mapping[str, Any]) -> float | None:
    start, end = body.get("created_at"), body.get("completed_at")
    if isinstance(start, (int, float)) and isinstance(end, (int, float)) and end >= start:
        return float(end - start)
    return None


def _is_search(item: Mapping[str, Any]) -> bool:
    """A search is billed; opening a page it found, or looking through it, is not."""
    if item.get("type") != "web_search_call":
        return False
    action = item.get("action")
    return not is_mapping(action) or action.get("type") in (None, "search")


def _shown(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an output item without what says nothing, so that a stream's and a plain agree."""
    return {k: v for k, v in item.items() if v is not None and k not in ("parsed", "logprobs")}


# -- streams -------------------------------------------------------------------------


def fold(source: Iterable[Event]) -> Folded:
    """Return the response that ends the stream, or what its events told of it until it broke."""
    events = list(source)
    first = next((at for at, data in events if any(mark in data for mark in _CONTENT)), None)
    for _, data in reversed(events):
        event = parse(data) if b'"response' in data or b'"error"' in data else None
        if not is_dict(event):
            continue
        if event.get("type") in _TERMINAL and is_dict(event.get("response")):
            return Folded(event["response"], first, complete=True)
        if event.get("type") == "error" or is_mapping(event.get("error")):
            broken = _partial(events)
            broken["error"] = event.get("error") or event
            return Folded(broken, first, complete=True)
        break
    return Folded(_partial(events), first, complete=False)


def _partial(events: list[Event]) -> dict[str, Any]:
    """Put a broken stream's output together from its deltas."""
    body: dict[str, Any] = {}
    items: dict[str, dict[str, Any]] = {}
    parts: dict[str, dict[Any, dict[str, Any]]] = {}
    """Of each item, the parts that deltas have named so far."""
    for _, data in events:
        event = parse(data)
        if not is_dict(event):
            continue
        if is_dict(response := event.get("response")):
            body.update({k: v for k, v in response.items() if v is not None})
        index, item = str(event.get("output_index")), event.get("item")
        if is_dict(item):
            items[index], parts[index] = {**item}, {}
        elif isinstance(text := event.get("delta"), str) and index in items:
            _append(items[index], event, text, parts[index])
    body["output"] = [items[index] for index in sorted(items, key=lambda i: (len(i), i))]
    body.pop("status", None)
    return joined(body)


def _append(
    item: dict[str, Any], event: dict[str, Any], text: str, known: dict[Any, dict[str, Any]]
) -> None:
    """Append a delta to its item; `known` are its parts, by how deltas name them."""
    kind = str(event.get("type"))
    if "arguments" in kind or "custom_tool_call_input" in kind or "code.delta" in kind:
        key = "arguments" if "arguments" in kind else "input" if "input" in kind else "code"
        append(item, key, text)
        return
    field = "summary" if "reasoning_summary" in kind else "content"
    parts: list[Any] = held(item, field, list)
    given = event.get(f"{field}_index")
    place = given if isinstance(given, int) else 0
    part = known.get((field, place))
    if part is None and 0 <= place < len(parts) and is_dict(parts[place]):
        part = parts[place]
    if part is None:
        part = {"type": _part_type(kind)}
        parts.append(part)
    known[field, place] = part
    append(part, "refusal" if "refusal" in kind else "text", text)


def _part_type(kind: str) -> str:
    if "reasoning_summary" in kind:
        return "summary_text"
    if "refusal" in kind:
        return "refusal"
    return "reasoning_text" if "reasoning" in kind else "output_text"
