"""Values that a stream hands out in pieces, put together again.

A broken piece costs nothing but itself: what was gathered before it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from .._narrowing import is_dict, is_list

_GROWING = ("text", "thinking", "summary")
"""Fields of a typed part that come in pieces, as texts or as lists of parts."""
Latest = dict[Any, dict[str, Any]]
"""What pieces yet to come may go on with, by what names it."""


class _Pieces(list[str]):
    """The pieces of a text that grows: to append to a text copies all of it each time."""


def append(into: dict[str, Any], key: str, text: str) -> None:
    """Append a delta to a text; whatever else stands there, a broken stream put there.

    The text is a text again after `joined`.
    """
    old = into.get(key)
    if type(old) is _Pieces:
        old.append(text)
    else:
        into[key] = _Pieces((old, text)) if isinstance(old, str) else _Pieces((text,))


def joined(body: dict[str, Any]) -> dict[str, Any]:
    """Make the texts that grew somewhere in a body texts again, and return it."""
    waiting: list[Any] = [body]
    while waiting:
        container = waiting.pop()
        keys: list[Any] = list(container if is_dict(container) else range(len(container)))
        for key in keys:
            value: Any = container[key]
            if type(value) is _Pieces:
                container[key] = "".join(value)
            elif isinstance(value, (dict, list)):
                waiting.append(value)
    return body


def held(owner: dict[str, Any], key: str, kind: Callable[[], Any]) -> Any:
    """Return the container that pieces of `key` are gathered in."""
    if type(owner.get(key)) is not kind:
        owner[key] = kind()
    return owner[key]


def put(into: dict[str, Any], key: str, value: Any) -> None:
    """Set a field that comes whole, unless it would undo what was gathered of another kind."""
    old = into.get(key)
    if not (is_list(old) or is_dict(old)) or old.__class__ is value.__class__:
        into[key] = value


def say(into: dict[str, Any], key: str, text: str) -> None:
    """Append a text to a field that grows; where typed parts stand there, as one of them."""
    if type(into.get(key)) is list:
        gather(into, key, [{"type": "text", "text": text}] if text else [], {})
    else:
        append(into, key, text)


def gather(into: dict[str, Any], key: str, pieces: list[Any], latest: Latest) -> bool:
    """Gather typed parts that come a few words at a time; true where one of them says any.

    Mistral's content and OpenRouter's `reasoning_details` come so. A part goes on with the one of
    its `index`, or where it has none, the first of a piece with the last one before it.
    """
    parts, said = _parts(into, key), False
    last = parts[-1] if parts else None
    for piece in pieces:
        grown = is_dict(piece) and any(piece.get(name) for name in _GROWING)
        said = said or grown
        part = _part(last, piece, key, latest) if is_dict(piece) else None
        if part is None:
            parts.append(piece)
        else:
            _grow(part, piece)
        last = None
    return said


def _parts(into: dict[str, Any], key: str) -> list[Any]:
    """Return the parts of a field, whose text so far is the first of them."""
    old = into.get(key)
    if type(old) is _Pieces:
        into[key] = [{"type": "text", "text": text}] if (text := "".join(old)) else []
    parts: list[Any] = held(into, key, list)
    return parts


def _part(last: Any, piece: dict[str, Any], key: str, latest: Latest) -> dict[str, Any] | None:
    """Return the part that a piece goes on with; `None` where it begins one."""
    kind, index, identity = piece.get("type"), piece.get("index"), piece.get("id")
    if not isinstance(kind, str) or not any(name in piece for name in _GROWING):
        return None
    place = (key, kind, index) if isinstance(index, (int, str)) else None
    part = latest.get(place) if place else last
    if is_dict(part) and part.get("type") == kind:
        known = part.get("id")
        if known is None or identity is None or known == identity:
            return part
    if place:
        latest[place] = piece
    return None


def _grow(part: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if name in _GROWING and isinstance(value, str):
            append(part, name, value)
        elif name in _GROWING and is_list(value) and type(part.get(name)) is list:
            _extend(part[name], value)
        elif value is not None:
            put(part, name, value)


def _extend(texts: list[Any], more: list[Any]) -> None:
    """Let the texts inside a part go on: Mistral's thoughts are a list of them."""
    last, first = texts[-1] if texts else None, more[0] if more else None
    if _is_text(last) and _is_text(first):
        append(last, "text", first["text"])
        more = more[1:]
    texts.extend(more)


def _is_text(part: object) -> TypeGuard[dict[str, Any]]:
    return is_dict(part) and part.keys() == {"type", "text"} and part["type"] == "text"
