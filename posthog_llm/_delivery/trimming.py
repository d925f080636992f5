"""Trimming an event to size, and recording how much was cut.

Media goes first, then the middle of the longest texts, then messages from the middle of the
conversation, then the caller's own long properties, then all content. Roles, the first and the
last messages, tokens and cost stay.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any

from .._event import CONTENT, CUT_MARK, Event
from .._media import described_field
from .._narrowing import is_dict, is_list, is_mapping
from .._weighing import size_of_plain, sizes_of_json

_WEIGHT = 2048
"""Bytes of memory that an event takes besides its properties."""
_SHORTEST = 200
"""Bytes below which a text is never cut."""
_LARGE = 1024
"""Most bytes of a caller's property once all content had to go."""
_MARKS = 300
"""Bytes reserved for the marks that say what was cut."""
_ENDS = 2
"""Messages that are kept at either end of a conversation."""
_LONGEST_INT = 4000
"""Most bits of an integer: Python refuses to format one of more than 4,300 digits."""
_DEEPEST = 100
"""Levels of a value that are kept; a value may contain itself."""


def weigh(value: Any) -> int:
    """Return a value's length as JSON, as the official client counts it.

    Raises what `json` raises for a value that it cannot encode.
    """
    return _sizes(value)[1]


def _sizes(value: Any) -> tuple[int, int]:
    """Return a value's bytes of memory, and its length as JSON."""
    try:
        return sizes_of_json(value)
    except TypeError:  # a caller's object, which only `str` can show
        length = len(json.dumps(value, default=str))  # first: it refuses what contains itself
        return size_of_plain(value), length


def fitted(event: Event, limit: int) -> Event | None:
    """Return the event, trimmed to at most `limit` bytes; `None` if that is impossible."""
    size = left = weigh(event.properties)
    if size <= limit:
        return event
    properties = json.loads(json.dumps(event.properties, default=str))  # a copy to cut
    for cut in (_cut_media, _cut_texts, _cut_messages, _cut_long_properties, _cut_content):
        cut(properties, left - limit + _MARKS)
        left = weigh(properties)
        if left + _MARKS <= limit:
            return _marked(event, properties, size - left)
    return None


def drop_content(event: Event) -> Event:
    """Return the event without content and long properties; tokens, cost and identity stay."""
    properties = dict(event.properties)
    _cut_content(properties, 0)
    cut = weigh(event.properties) - weigh(properties)
    return _marked(event, properties, cut) if cut > 0 else event


def _marked(event: Event, properties: dict[str, Any], cut: int) -> Event:
    properties[CUT_MARK] = properties.get(CUT_MARK, 0) + cut
    return replace(event, properties=properties)


def _cut_media(properties: dict[str, Any], excess: int) -> None:
    for owner, key in list(_texts(properties, CONTENT)):
        if is_dict(owner):
            owner[key] = described_field(owner, key, owner[key])


def _cut_texts(properties: dict[str, Any], excess: int) -> None:
    _shorten(_texts(properties, CONTENT), excess)


def _cut_messages(properties: dict[str, Any], excess: int) -> None:
    """Remove messages from the middle of the longest lists."""
    lists = [properties[name] for name in CONTENT & properties.keys()]
    for messages in sorted((v for v in lists if is_list(v)), key=weigh, reverse=True):
        start = end = len(messages) // 2
        while excess > 0 and end - start < len(messages) - 2 * _ENDS:
            if start > len(messages) - end:
                start -= 1
                excess -= weigh(messages[start])
            else:
                excess -= weigh(messages[end])
                end += 1
        if end > start:
            mark = {"role": "system", "content": f"[{end - start} messages cut]"}
            messages[start:end] = [mark] if "role" in messages[0] else []


def _cut_long_properties(properties: dict[str, Any], excess: int) -> None:
    _shorten(_texts(properties, properties.keys()), excess)


def _cut_content(properties: dict[str, Any], excess: int) -> None:
    for name, value in list(properties.items()):
        if name in CONTENT:
            del properties[name]
        elif (size := weigh(value)) > _LARGE:
            properties[name] = f"[{size} bytes cut]"


def _texts(properties: dict[str, Any], names: Collection[str]) -> Iterator[tuple[Any, Any]]:
    """Yield the container and key of every text inside the named properties."""
    containers: list[Any] = [{name: properties[name] for name in names if name in properties}]
    for name, item in containers.pop().items():
        if isinstance(item, str):
            yield properties, name
        elif isinstance(item, (dict, list)):
            containers.append(item)
    while containers:
        container = containers.pop()
        pairs = container.items() if is_dict(container) else enumerate(container)
        for key, item in pairs:
            if isinstance(item, str):
                yield container, key
            elif isinstance(item, (dict, list)):
                containers.append(item)


def _shorten(texts: Iterable[tuple[Any, Any]], excess: int) -> None:
    """Cut the middle of the longest texts, all to one length, until `excess` bytes are gone."""
    sized = [(weigh(owner[key]), owner, key) for owner, key in texts]
    longest = sorted((one for one in sized if one[0] > _SHORTEST), key=lambda one: -one[0])
    level = _level([size for size, _, _ in longest], excess)
    for size, owner, key in longest:
        if size <= level:
            break
        text = owner[key]
        kept = max(0, len(text) * level // size - _SHORTEST // 4) // 2
        gone = len(text) - 2 * kept
        owner[key] = f"{text[:kept]}[{gone} characters cut]{text[len(text) - kept :]}"


def _level(sizes: list[int], excess: int) -> int:
    """Return the size to which the largest of `sizes` (in descending order) must be cut."""
    total = 0
    for count, size in enumerate(sizes, 1):
        total += size
        below = sizes[count] if count < len(sizes) else _SHORTEST
        if total - count * below >= excess:
            return max(_SHORTEST, (total - excess) // count)
    return _SHORTEST


def writable(event: Event) -> tuple[Event, int, int]:
    """Return the event in a form that JSON can encode, its length as JSON, and its memory.

    An event that cannot be encoded fails its whole batch, and stops some official clients' sender.
    """
    try:
        return event, *sizes(event)
    except Exception:  # whatever the caller's objects raise
        groups = _plain(event.groups) if event.groups else None
        event = replace(event, properties=_plain(event.properties), groups=groups)
        return event, *sizes(event)


def sizes(event: Event) -> tuple[int, int]:
    """Return an event's length as JSON, and the bytes of memory that it takes."""
    groups = len(json.dumps(event.groups, default=str))  # a filter's, which may contain themselves
    held, length = _sizes(event.properties)
    return length + groups + 4, _WEIGHT + held + size_of_plain(event.groups)


def _plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return f"[integer of {value.bit_length()} bits]"
    if value is None or isinstance(value, (str, int, float)):
        return value
    if id(value) in above or len(above) > _DEEPEST:
        return f"[{value.__class__.__name__}]"
    inside = (*above, id(value))
    if is_mapping(value):
        return {_text(key): _plain(item, inside) for key, item in value.items()}
    if is_list(value) or value.__class__ in (tuple, set, frozenset):
        return [_plain(item, inside) for item in value]
    return _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # a caller's object, or an integer with too many digits
        return f"[{value.__class__.__name__}]"
