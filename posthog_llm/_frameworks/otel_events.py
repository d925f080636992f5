"""Content in the events of a span, instead of its attributes; pure functions.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-events/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .._narrowing import is_sequence, mapping
from .._snapshot import Unread

_DETAILS = "gen_ai.client.inference.operation.details"
_CHOICE = "gen_ai.choice"


# -- on the caller's thread -------------------------------------------------------------


def details_in(events: Iterable[Any]) -> dict[str, Any]:
    """Return what the events of the newer convention hold: attributes that spans may have, too."""
    found: dict[str, Any] = {}
    for event in events:
        if event.name == _DETAILS:
            found.update(event.attributes or {})
    return found


def said_in(events: Iterable[Any], kind: str | None) -> tuple[Any, Any]:
    """Return the input and the output that events of the older convention hold."""
    asked = [(e.name, e.attributes) for e in events if _is_message(e.name)]
    said = [(e.name, e.attributes) for e in events if e.name == _CHOICE]
    read = _last_content if kind == "tool" else _messages
    return (Unread(read, asked) if asked else None), (Unread(read, said) if said else None)


def _is_message(name: str) -> bool:
    return name.startswith("gen_ai.") and name.endswith(".message")


# -- in the worker ------------------------------------------------------------------------


def parsed(value: Any) -> Any:
    """Return what a text of JSON holds; any other value as it is."""
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # cut by the SDK's limit, or not JSON at all
        return value


def function_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}


def _last_content(raw: list[tuple[str, Any]]) -> Any:
    """Return the arguments of a tool, or its result: who says it is known."""
    return _content(*raw[-1])


def _messages(raw: Iterable[tuple[str, Any]]) -> Any:
    return [_message(name, mapping(attributes)) for name, attributes in raw]


def _message(name: str, attributes: Mapping[str, Any]) -> Any:
    is_choice = name == _CHOICE
    role = "assistant" if is_choice else name.removeprefix("gen_ai.").removesuffix(".message")
    return {"role": attributes.get("role", role), "content": _content(name, attributes)}


def _content(name: str, attributes: Any) -> Any:
    content = parsed(mapping(attributes).get("message" if name == _CHOICE else "content"))
    return [_block(block) for block in content] if is_sequence(content) else content


def _block(block: Any) -> Any:
    """Return a block of Bedrock's Converse API, which Strands writes, as PostHog shows it."""
    about = mapping(block)
    if set(about) == {"text"}:
        return {"type": "text", "text": about["text"]}
    if used := mapping(about.get("toolUse")):
        return function_call(used.get("toolUseId"), used.get("name"), used.get("input"))
    if result := mapping(about.get("toolResult")):
        content = result.get("content")
        blocks = [_block(one) for one in content] if is_sequence(content) else content
        return {"type": "tool_result", "tool_use_id": result.get("toolUseId"), "content": blocks}
    if thought := mapping(mapping(about.get("reasoningContent")).get("reasoningText")):
        return {"type": "thinking", "thinking": thought.get("text")}
    return block
