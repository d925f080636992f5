"""The content of Gemini's API as messages of typed blocks, such as PostHog shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .._narrowing import is_list, is_mapping, mapping
from .chat import text_or_none

_ROLES = {"model": "assistant"}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_KINDS = ("image", "audio", "video")
_BESIDE = frozenset({"thought", "thoughtSignature", "thought_signature"})
"""Fields of a part that only say how to read it, or that only the provider can read."""


def snake(name: str) -> str:
    """Return a field's name as Python's SDK spells it."""
    return _HUMP.sub("_", name).lower()


def messages(instruction: Any, contents: Any) -> list[dict[str, Any]]:
    """Return a request's system instruction and contents as messages."""
    found = [message("system", content) for content in (_content(instruction),) if content]
    given = contents if is_list(contents) else [contents] if contents else []
    for turn in given:
        role = mapping(turn).get("role")
        role = role if isinstance(role, str) and role else "user"
        found.append(message(_ROLES.get(role, role), _content(turn)))
    return found


def message(role: str, content: list[Any]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _content(turn: Any) -> list[Any]:
    if isinstance(turn, str):
        return [{"type": "text", "text": turn}]
    return blocks(mapping(turn).get("parts"))


def blocks(parts: Any) -> list[Any]:
    """Return parts as typed blocks."""
    given = parts if is_list(parts) else [parts] if parts else []
    return [block for part in given for block in _blocks(part)]


def _blocks(part: Any) -> Iterator[Any]:
    if not is_mapping(part):
        yield {"type": "text", "text": part} if isinstance(part, str) else part
        return
    part = {snake(k): v for k, v in part.items() if v is not None}
    if (text := part.get("text")) is not None:
        if text or len(part) == 1:
            yield _text(text, part.get("thought") is True)
        return
    for name, read in _READ.items():
        if is_mapping(found := part.get(name)):
            yield read({snake(k): v for k, v in found.items() if v is not None})
            return
    rest = {k: v for k, v in part.items() if k not in _BESIDE}
    if rest:
        name = next(iter(rest))
        yield {"type": name, **rest}


def _text(text: Any, is_thought: bool) -> dict[str, Any]:
    """Return a text; what the model thought is its reasoning."""
    if is_thought:
        return {"type": "thinking", "thinking": text}
    return {"type": "text", "text": text}


def _kind(media_type: Any) -> str:
    kind = media_type.partition("/")[0] if isinstance(media_type, str) else ""
    return kind if kind in _KINDS else "file"


def _inline(blob: Mapping[str, Any]) -> dict[str, Any]:
    media_type = text_or_none(blob.get("mime_type"))
    found = {"type": _kind(media_type), "media_type": media_type, "data": blob.get("data")}
    if name := blob.get("display_name"):
        found["filename"] = name
    return found


def _file(file: Mapping[str, Any]) -> dict[str, Any]:
    media_type = text_or_none(file.get("mime_type"))
    return {"type": _kind(media_type), "media_type": media_type, "url": file.get("file_uri")}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = call.get("args") or _streamed(call.get("partial_args"))
    function: dict[str, Any] = {"name": call.get("name"), "arguments": arguments}
    return {"type": "function", **_id("id", call), "function": function}


def _streamed(pieces: Any) -> dict[str, Any]:
    """Return the arguments that came in pieces: a place such as `$.city`, and a value.

    Texts in one place are one text. A place inside of an argument is kept as a path.
    """
    found: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    for piece in pieces if is_list(pieces) else ():
        about = mapping(piece)
        path = str(about.get("jsonPath", "")).removeprefix("$").removeprefix(".")
        for name in ("stringValue", "numberValue", "boolValue", "nullValue"):
            if name in about:
                found[path] = None if name == "nullValue" else about[name]
        if isinstance(text := about.get("stringValue"), str):
            texts.setdefault(path, []).append(text)
    return {**found, **{path: "".join(parts) for path, parts in texts.items()}}


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    found = {"type": "tool_result", **_id("tool_use_id", result), "tool_name": result.get("name")}
    content = result.get("response")
    if more := result.get("parts"):
        return {**found, "content": [content, *blocks(more)]}
    return {**found, "content": content}


def _id(name: str, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the id of a function call, which Gemini often leaves out."""
    found = owner.get("id")
    return {name: found} if isinstance(found, str) and found else {}


def _code(code: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "executable_code", **code}


def _executed(result: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "code_execution_result", **result}


_READ = {
    "inline_data": _inline,
    "file_data": _file,
    "function_call": _call,
    "function_response": _result,
    "executable_code": _code,
    "code_execution_result": _executed,
}
