"""Reassembles values that a stream sends in pieces.

A broken piece loses only itself: what was gathered before it stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

from .._narrowing import is_dict, is_list

_GROWING = ("text", "thinking", "summary")
"""Fields of a typed part that come in pieces, as texts or as lists of parts."""
Latest = dict[Any, dict[str, Any]]
"""What later pieces may continue, by the key that identifies it."""


class _Pieces(list[str]):
    """The pieces of a growing text: appending to a `str` would copy all of it each time."""


def append(into: dict[str, Any], key: str, text: str) -> None:
    """Append a delta to a text; a value of another type, from a broken stream, is replaced.

    `joined` turns the pieces into a text again.
    """
    old = into.get(key)
    if type(old) is _Pieces:
        old.append(text)
    else:
        into[key] = _Pieces((old, text)) if isinstance(old, str) else _Pieces((text,))


def joined(body: dict[str, Any]) -> dict[str, Any]:
    """Join all growing texts in a body, and return it."""
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
    """Return the container in which the pieces of `key` are gathered."""
    if type(owner.get(key)) is not kind:
        owner[key] = kind()
    return owner[key]


def put(into: dict[str, Any], key: str, value: Any) -> None:
    """Set a field that comes whole, unless a container of another type was gathered there."""
    old = into.get(key)
    if not (is_list(old) or is_dict(old)) or old.__class__ is value.__class__:
        into[key] = value


def say(into: dict[str, Any], key: str, text: str) -> None:
    """Append to a growing text; if the field holds typed parts, add it as one of them."""
    if type(into.get(key)) is list:
        gather(into, key, [{"type": "text", "text": text}] if text else [], {})
    else:
        append(into, key, text)


def gather(into: dict[str, Any], key: str, pieces: list[Any], latest: Latest) -> bool:
    """Gather typed parts that come a few words at a time; return whether any has text.

    Mistral's content and OpenRouter's `reasoning_details` come this way. A piece continues the part
    with the same `index`; without an `index`, the first piece continues the last part.
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
    """Return the parts of a field; a text gathered so far becomes the first part."""
    old = into.get(key)
    if type(old) is _Pieces:
        into[key] = [{"type": "text", "text": text}] if (text := "".join(old)) else []
    parts: list[Any] = held(into, key, list)
    return parts


def _part(last: Any, piece: dict[str, Any], key: str, latest: Latest) -> dict[str, Any] | None:
    """Return the part that a piece continues; `None` if it begins a new one."""
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
    """Continue the texts inside a part: Mistral's thinking is a list of them."""
    last, first = texts[-1] if texts else None, more[0] if more else None
    if _is_text(last) and _is_text(first):
        append(last, "text", first["text"])
        more = more[1:]
    texts.extend(more)


def _is_text(part: object) -> TypeGuard[dict[str, Any]]:
    return is_dict(part) and part.keys() == {"type", "text"} and part["type"] == "text"
