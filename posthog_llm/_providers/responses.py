"""The Responses API: create, compact, background responses and streams.

https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .._exchange import Exchange, Failure
from .._narrowing import is_dict, is_list, is_mapping
from .._record import Helper, RequestFacts, ResponseFacts, Usage
from . import usage
from .chat import as_prompt, failure, text_or_none
from .parsing import parse
from .pieces import append, held, joined
from .sse import Event, Folded

_NOT_PARAMETERS = frozenset({"input", "model", "tools", "instructions"})
_FILE_SEARCH_USD = 0.0025
_TERMINAL = frozenset(
    {"response.completed", "response.failed", "response.incomplete", "response.cancelled"}
)
_MARKS = re.compile(rb'"(?:response\.(?:completed|failed|incomplete|cancelled)|error)"')
"""What appears in each event that ends a stream, and in few others."""
_ITEM_DONE = "response.output_item.done"
_EMPTY_ITEMS: dict[Any, tuple[str, ...]] = {
    "message": ("content",),
    "reasoning": ("content", "summary"),
    "web_search_call": ("action",),
    "mcp_list_tools": (),
}
"""Items that may be empty, and the fields that hold their content."""
_SAYING = re.compile(
    rb'"response\.(?:\w+(?:\.\w+)*\.delta|image_generation_call\.partial_image|output_item\.done)"'
)


def read_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    prompt = as_prompt(body.get("input"))
    instructions = body.get("instructions")
    if instructions:
        items = prompt if is_list(prompt) else []
        prompt = [{"role": "system", "content": instructions}, *items]
    return RequestFacts(
        model=text_or_none(body.get("model")),
        input=prompt,
        instructions=instructions or None,
        tools=body.get("tools"),
        parameters={k: v for k, v in body.items() if k not in _NOT_PARAMETERS},
    )


def read_response(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    status = body.get("status")
    raw = body.get("output")
    output = [item for item in raw if is_mapping(item)] if is_list(raw) else []
    model = text_or_none(body.get("model"))
    counted = usage.read(body.get("usage"), provider)
    _count_tools(counted, body, output, provider)
    return ResponseFacts(
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
        created_at=usage.number(body.get("created_at")) if body.get("background") is True else None,
        elapsed=_elapsed(body),
        helpers=_helpers(body, output, provider),
    )


def _count_tools(
    counted: Usage, body: Mapping[str, Any], output: list[Mapping[str, Any]], provider: str
) -> None:
    """Count what is charged in addition to tokens.

    File searches also get a price: it is the same for every model, and PostHog has none. A
    container is charged by memory and time, and may serve several responses.
    https://platform.openai.com/docs/pricing
    """
    billed = usage.count(_tool_usage(body, "web_search"), "num_requests")
    searches = sum(_is_search(item) for item in output)
    if billed is not None:
        counted.web_searches = billed
    elif searches and not counted.web_searches:
        counted.web_searches = searches
    counted.file_searches = sum(i.get("type") == "file_search_call" for i in output) or None
    ran = (i.get("container_id") for i in output if i.get("type") == "code_interpreter_call")
    counted.containers = len({name for name in ran if isinstance(name, str)}) or None
    if counted.file_searches and provider == "openai":  # unused if a reported cost is
        counted.request_cost_usd = counted.file_searches * _FILE_SEARCH_USD


def _helpers(
    body: Mapping[str, Any], output: list[Mapping[str, Any]], provider: str
) -> list[Helper]:
    """Return the models that generated images; the response's usage excludes their tokens."""
    found: list[tuple[str | None, Any]] = []
    image_usage = _tool_usage(body, "image_gen")
    if usage.count(image_usage, "total_tokens"):
        tools = body.get("tools")
        models = (tool.get("model") for tool in tools if _draws(tool)) if is_list(tools) else ()
        found.append((next(filter(None, map(text_or_none, models)), None), image_usage))
    written = (i.get("svg_usage") for i in output if i.get("type") == "image_generation_call")
    found += [(text_or_none(raw.get("model")), raw) for raw in written if is_mapping(raw)]
    return [Helper("image_generation", name, usage.read(raw, provider)) for name, raw in found]


def _draws(tool: Any) -> bool:
    return is_mapping(tool) and tool.get("type") == "image_generation"


def _tool_usage(body: Mapping[str, Any], tool: str) -> Mapping[str, Any]:
    return usage.details(usage.details(body, "tool_usage"), tool)


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
    start, end = usage.number(body.get("created_at")), usage.number(body.get("completed_at"))
    return None if start is None or end is None or end < start else usage.number(end - start)


def _is_search(item: Mapping[str, Any]) -> bool:
    """A search is billed; opening a page, or searching within one, is not."""
    if item.get("type") != "web_search_call":
        return False
    action = item.get("action")
    return not is_mapping(action) or action.get("type") in (None, "search")


def _shown(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an output item without empty fields, so that streamed and plain responses agree."""
    return {k: v for k, v in item.items() if v is not None and k not in ("parsed", "logprobs")}


# -- streams -------------------------------------------------------------------------


def fold(source: Iterable[Event]) -> Folded:
    """Return the response that ends the stream, or what its events contained until it broke off.

    Events after the end of the response are ignored, except errors.
    """
    events = list(source)
    first = next((at for at, data in events if says(data)), None)
    for _, data in reversed(events):
        event = parse(data) if _MARKS.search(data) else None
        if not is_dict(event):
            continue
        kind, response = str(event.get("type")), event.get("response")
        if kind in _TERMINAL and is_dict(response):
            return Folded(_whole(response, events), first, complete=True)
        if kind == "error" or event.get("error"):
            broken = _partial(events)
            broken["error"] = event.get("error") or event
            return Folded(broken, first, complete=True)
    return Folded(_partial(events), first, complete=False)


def says(data: bytes) -> bool:
    """Whether an event is content. Text echoed from the request may only look like it."""
    event = parse(data) if _SAYING.search(data) else None
    if not is_dict(event) or not isinstance(kind := event.get("type"), str):
        return False
    if _SAYING.fullmatch(b'"%b"' % kind.encode("utf-8", "replace")) is None:
        return False
    return _item_says(event.get("item")) if kind == _ITEM_DONE else event.get("delta") != ""


def _item_says(item: Any) -> bool:
    """Whether a finished item holds model output.

    A reasoning item is empty unless summaries were requested, and an MCP server's tool list comes
    before any model output.
    """
    kind = item.get("type") if is_dict(item) else None
    if kind in _EMPTY_ITEMS:
        return any(item.get(name) for name in _EMPTY_ITEMS[kind])
    return kind is not None


def _whole(response: dict[str, Any], events: list[Event]) -> dict[str, Any]:
    """Return the final response, with the output that was streamed if it has none."""
    if response.get("output"):
        return response
    return {**response, "output": _partial(events)["output"]}


def _partial(events: list[Event]) -> dict[str, Any]:
    """Assemble a broken stream's output from its deltas."""
    body: dict[str, Any] = {}
    items: dict[str, dict[str, Any]] = {}
    parts: dict[str, dict[Any, dict[str, Any]]] = {}
    """For each item, the parts that deltas have named so far."""
    for _, data in events:
        event = parse(data)
        if not is_dict(event):
            continue
        if is_dict(response := event.get("response")):
            body.update({k: v for k, v in response.items() if v is not None})
        index, item = str(event.get("output_index")), event.get("item")
        if is_dict(item) and item:
            items[index], parts[index] = {**item}, {}
        elif isinstance(text := event.get("delta"), str) and index in items:
            _append(items[index], event, text, parts[index])
    body["output"] = [items[index] for index in sorted(items, key=lambda i: (len(i), i))]
    for name in ("status", "service_tier"):  # these are the requested values
        body.pop(name, None)
    return joined(body)


def _append(
    item: dict[str, Any], event: dict[str, Any], text: str, known: dict[Any, dict[str, Any]]
) -> None:
    """Append a delta to its item; `known` has the item's parts by the deltas' field and index."""
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
