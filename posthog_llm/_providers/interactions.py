"""Gemini's interactions: steps of a model or an agent.

https://ai.google.dev/gemini-api/docs/interactions
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._exchange import Exchange, Failure
from .._narrowing import is_dict, is_list, is_mapping, mapping
from .._record import RequestFacts, ResponseFacts, Usage
from .chat import text_or_none
from .gemini import failure
from .gemini_content import message
from .gemini_usage import without_tools
from .pieces import append, held, joined
from .sse import Event, Folded, objects
from .usage import count

_CONTENT = frozenset(
    {"input", "system_instruction", "tools", "model", "agent", "generation_config"}
)
_BUSY = ("queued", "in_progress")
_UNSAID = frozenset({"signature", "thought_signature"})
"""Fields that only the provider can read."""
_MEDIA = ("image", "audio", "video", "document", "file")
_FAILED = ("failed",)


def read_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    rest = {k: v for k, v in body.items() if k not in _CONTENT}
    model = text_or_none(body.get("model")) or text_or_none(body.get("agent"))
    return RequestFacts(
        model=model or exchange.model,
        input=_input(body.get("system_instruction"), body.get("input")) or None,
        tools=body.get("tools"),
        parameters={**rest, **mapping(body.get("generation_config"))},
    )


def _input(instruction: Any, given: Any) -> list[dict[str, Any]]:
    """Return the input as messages: a text, contents, or the steps of a conversation."""
    found = [message("system", _texts(instruction))] if instruction else []
    items = given if is_list(given) else [given] if given else []
    if any(mapping(item).get("type") in ("user_input", "model_output") for item in items):
        return [*found, *map(_turn, items)]
    turns = [item for item in items if mapping(item).get("role")]
    if turns:  # of older versions
        return [*found, *(message(_role(t), _texts(mapping(t).get("content"))) for t in turns)]
    content = [block for item in items for block in _block(item)]
    return [*found, message("user", content)] if content else found


def _role(turn: Any) -> str:
    role = str(mapping(turn).get("role"))
    return "assistant" if role == "model" else role


def _turn(step: Any) -> dict[str, Any]:
    kind = mapping(step).get("type")
    role = "user" if kind in ("user_input", "function_result") else "assistant"
    return message(role, list(_step(step)))


def _texts(content: Any) -> list[Any]:
    items = content if is_list(content) else [content] if content else []
    return [block for item in items for block in _block(item)]


def _block(item: Any) -> Iterator[Any]:
    """Yield the blocks of a content, which is typed already."""
    if isinstance(item, str):
        yield {"type": "text", "text": item}
    elif is_mapping(item):
        kind = item.get("type")
        if kind in _MEDIA:
            kept = {"type": kind, "media_type": item.get("mime_type"), "data": item.get("data")}
            kept["url"] = item.get("uri")
            yield {k: v for k, v in kept.items() if v is not None}
        else:
            yield from _step(item)


def _step(step: Any) -> Iterator[Any]:
    """Yield the blocks of a step: what was said, thought, called or returned."""
    if not is_mapping(step):
        yield step
        return
    kind = step.get("type")
    if kind in ("model_output", "user_input"):
        yield from _texts(step.get("content"))
    elif kind == "thought":
        summary = (mapping(part).get("text") for part in _list(step, "summary"))
        text = "".join(part for part in summary if isinstance(part, str))
        if text:
            yield {"type": "thinking", "thinking": text}
    elif kind == "function_call":
        function = {"name": step.get("name"), "arguments": step.get("arguments")}
        yield {"type": "function", "id": step.get("id"), "function": function}
    elif kind == "function_result":
        found = {"tool_use_id": step.get("call_id"), "tool_name": step.get("name")}
        kept = {k: v for k, v in found.items() if v is not None}
        yield {"type": "tool_result", **kept, "content": step.get("result")}
    else:
        yield {k: v for k, v in step.items() if v is not None and k not in _UNSAID}


def _list(owner: Mapping[str, Any], name: str) -> list[Any]:
    found = owner.get(name)
    return found if is_list(found) else []


def read_response(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    status = text_or_none(body.get("status"))
    steps = _list(body, "steps") or _list(body, "outputs")
    said = [block for step in steps for block in _block(step) if _is_said(step)]
    return ResponseFacts(
        model=text_or_none(body.get("model")) or text_or_none(body.get("agent")),
        output=[message("assistant", said)] if said else None,
        usage=_usage(mapping(body.get("usage")), any(map(_read_urls, steps))),
        stop_reason=status,
        service_tier=text_or_none(body.get("service_tier")),
        response_id=text_or_none(body.get("id")),
        failure=_failure(body, status),
        cancelled=status == "cancelled",
        pending=status in _BUSY,
        background=body.get("background") is True,
    )


def _is_said(step: Any) -> bool:
    return mapping(step).get("type") not in ("user_input", "function_result")


def _failure(body: Mapping[str, Any], status: str | None) -> Failure | None:
    reported = body.get("error") or next(iter(_list(body, "errors")), None)
    if found := failure(reported):
        return found
    return Failure("APIError") if status in _FAILED else None


def _read_urls(step: Any) -> bool:
    """Whether the model was given the content of URLs, which is charged as input."""
    return (text_or_none(mapping(step).get("type")) or "").startswith("url_context")


def _usage(raw: Mapping[str, Any], uses_urls: bool) -> Usage:
    """Read a usage object: cached tokens are part of the input, thoughts not of the output."""
    if not raw:
        return Usage()
    into, out = _by(raw, "input_tokens_by_modality"), _by(raw, "output_tokens_by_modality")
    cached = _by(raw, "cached_tokens_by_modality")
    given, total = count(raw, "total_input_tokens"), count(raw, "total_tokens")
    tools = count(raw, "total_tool_use_tokens") or 0
    if not uses_urls:
        total = without_tools(total, tools, given)
    elif given is not None:
        given += tools
    searches = [
        count(mapping(tool), "count") or 0
        for tool in _list(raw, "grounding_tool_count")
        if mapping(tool).get("type") == "google_search"
    ]
    return Usage(
        input_tokens=given,
        output_tokens=count(raw, "total_output_tokens"),
        total_tokens=total,
        cache_read_tokens=count(raw, "total_cached_tokens"),
        reasoning_tokens=count(raw, "total_thought_tokens"),
        text_input_tokens=into.get("text"),
        audio_input_tokens=into.get("audio"),
        image_input_tokens=into.get("image"),
        text_output_tokens=out.get("text"),
        audio_output_tokens=out.get("audio"),
        image_output_tokens=out.get("image"),
        cached_audio_tokens=cached.get("audio"),
        cached_image_tokens=cached.get("image"),
        web_searches=sum(searches) or None,
        raw=raw,
    )


def _by(raw: Mapping[str, Any], name: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in _list(raw, name):
        kind, tokens = mapping(part).get("modality"), count(mapping(part), "tokens")
        if isinstance(kind, str) and tokens is not None:
            found[kind.lower()] = found.get(kind.lower(), 0) + tokens
    return found


# -- streams -------------------------------------------------------------------------


def fold(source: Iterable[Event]) -> Folded:
    """Fold a stream's events into the interaction that a plain request would have had."""
    body: dict[str, Any] = {}
    steps: dict[int, dict[str, Any]] = {}
    first: int | None = None
    ended = False
    for offset, event in objects(source):
        kind, index = str(event.get("event_type")), event.get("index")
        if is_dict(found := event.get("interaction")):
            body.update({k: v for k, v in found.items() if v is not None})
            ended = ended or kind == "interaction.completed"
        elif kind == "interaction.status_update":
            body["status"] = event.get("status")
        elif kind == "step.start" and isinstance(index, int) and is_dict(event.get("step")):
            steps[index] = dict(event["step"])
        elif kind == "step.delta" and isinstance(index, int) and is_dict(event.get("delta")):
            grown = _grow(steps.setdefault(index, {"type": "model_output"}), event["delta"])
            first = offset if first is None and grown else first
        elif kind == "error":
            body["error"], ended = event.get("error") or {"message": "error"}, True
    if body.get("status") in _BUSY:
        del body["status"]  # of its beginning; a request says itself that it is to be polled
    if steps:
        body["steps"] = [steps[index] for index in sorted(steps)]
    return Folded(joined(body), first, ended)


def _grow(step: dict[str, Any], delta: dict[str, Any]) -> bool:
    """Add a delta to its step; return whether it says anything."""
    kind, text = delta.get("type"), delta.get("text")
    if kind == "text" and isinstance(text, str):
        _say(held(step, "content", list), text)
        return bool(text)
    if kind == "thought_summary":
        _say(held(step, "summary", list), str(mapping(delta.get("content")).get("text") or ""))
        return True
    if kind == "arguments_delta" and isinstance(piece := delta.get("arguments"), str):
        if is_dict(step.get("arguments")):  # they begin as an empty object
            step["arguments"] = ""
        append(step, "arguments", piece)
        return True
    if kind in _MEDIA:
        held(step, "content", list).append(delta)
        return True
    return False


def _say(parts: list[Any], text: str) -> None:
    last = parts[-1] if parts else None
    if is_dict(last) and last.get("type") == "text":
        append(last, "text", text)
    elif text:
        parts.append({"type": "text", "text": text})
