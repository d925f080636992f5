"""Converts any API's output to the one shape that every version of PostHog renders.

One message per choice, with a list of typed blocks. PostHog's own libraries send this shape, and
PostHog counts tool calls from it:
https://posthog.com/docs/ai-observability/generations
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .._narrowing import is_dict, is_list

_SAID = ("content", "refusal", "tool_calls", "function_call", "audio", "images")
_THOUGHTS = ("reasoning_content", "reasoning")
"""Fields in which OpenAI-compatible providers put reasoning."""
_TEXTS = frozenset({"text", "output_text"})
_NOT_SHOWN = frozenset({"type", "text", "logprobs", "parsed"})
"""Fields of a text that are not part of its block, or repeat it."""
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def choices(output: Any) -> Any:
    """Return cleaned output as messages of blocks.

    The items of a response are combined into one message. Output in no known shape stays as it is.
    """
    if not is_list(output):
        return output
    kept: list[Any] = []
    of_items: dict[str, Any] | None = None
    for value in output:
        if not _is_item(value):
            kept.append(_message(value))
            continue
        if of_items is None:
            of_items = {"role": "assistant", "content": []}
            kept.append(of_items)
        if value.get("type") == "message":
            of_items["role"] = value.get("role") or "assistant"
        of_items["content"] += _of_item(value)
    return [message for message in kept if not _is_empty(message)]


def _is_empty(message: Any) -> bool:
    return is_dict(message) and message.get("content") == [] and len(message) == 2


def _is_item(value: Any) -> bool:
    if not is_dict(value) or not isinstance(kind := value.get("type"), str):
        return False
    return kind == "message" or "role" not in value


def _of_item(item: Mapping[str, Any]) -> list[Any]:
    kind = item["type"]
    if kind == "message":
        return list(_blocks(item.get("content")))
    if kind == "function_call":
        return [_function(item, item.get("arguments"))]
    if kind == "custom_tool_call":
        return [_function(item, item.get("input"))]
    return [_block(item)]


def _message(value: Any) -> Any:
    if not is_dict(value) or not any(name in value for name in _SAID):
        return value
    rest = {k: v for k, v in value.items() if k not in _SAID and k != "role"}
    thoughts = list(_thoughts(rest))
    blocks = [*_blocks(value.get("content")), *_beside(value)]
    texts = [block for block in blocks if is_dict(block) and block.get("type") == "text"]
    if "annotations" in rest and len(texts) == 1:
        texts[0]["annotations"] = rest.pop("annotations")
    role = value.get("role") or "assistant"
    return {"role": role, "content": [*thoughts, *blocks], **rest}


def _thoughts(rest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Extract the reasoning from a message's fields; some providers send it under both names."""
    kept: list[str] = []
    for name in _THOUGHTS:
        if isinstance(text := rest.get(name), str):
            del rest[name]
            if text and text not in kept:
                kept.append(text)
                yield {"type": "thinking", "thinking": text}


def _beside(message: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what a chat message contains besides its content."""
    if refusal := message.get("refusal"):
        yield {"type": "refusal", "refusal": refusal}
    calls = message.get("tool_calls")
    for call in calls if is_list(calls) else ():
        yield _tool_call(call)
    if is_dict(call := message.get("function_call")):
        yield {"type": "function", "function": call}
    if is_dict(audio := message.get("audio")):
        yield {"type": "audio", **audio}
    images = message.get("images")
    yield from images if is_list(images) else ()


def _tool_call(call: Any) -> Any:
    if not is_dict(call):
        return call
    rest = {k: v for k, v in call.items() if k not in ("type", "function", "custom")}
    if is_dict(custom := call.get("custom")):
        function = {"name": custom.get("name"), "arguments": custom.get("input")}
        return {"type": "function", **rest, "function": function}
    return {"type": "function", **rest, "function": call.get("function")}


def _function(item: Mapping[str, Any], arguments: Any) -> dict[str, Any]:
    """Return the block of a tool call that is an item or block of its own."""
    identity = item.get("call_id") or item.get("id")
    function = {"name": item.get("name"), "arguments": arguments}
    return {"type": "function", "id": identity, "function": function}


def _blocks(content: Any) -> Iterator[Any]:
    if is_list(content):
        for part in content:
            yield _block(part)
    elif content not in _EMPTY:
        yield _block(content)


def _block(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not is_dict(part):
        return part
    kind = part.get("type")
    if isinstance(kind, str) and kind in _TEXTS:
        more = {k: v for k, v in part.items() if k not in _NOT_SHOWN and v not in _EMPTY}
        return {"type": "text", "text": part.get("text"), **more}
    return _function(part, part.get("input")) if kind == "tool_use" else part
