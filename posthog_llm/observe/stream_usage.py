"""Asking for a stream's token usage when the caller did not, without the caller seeing it.

OpenAI's chat and completion streams report usage only with
`stream_options.include_usage` (https://platform.openai.com/docs/api-reference/chat/create).
The option is added to a copy of the body. It causes one more chunk, with usage and no
choices, and `"usage": null` on every other one; both are taken out of the bytes again
before the SDK reads them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..encoding import Transcoder
from ..narrowing import is_dict, is_mapping

_support: dict[str, bool] = {}
"""Base URL → whether it takes the option. Absent: not known yet."""
_MARKS = ("stream_options", "include_usage")
_REFUSALS = (400, 422)
_NULL = b',"usage":null'
_END = b"}\n\n"
_NULL_AT_END = _NULL + _END
_BEFORE_NULL = -len(_NULL_AT_END)
_CHOICE = b'"choices":[{'
# On the chunk itself: its last field, or behind the choices; not one of that name inside.
_NULLS = re.compile(
    rb',\s*"usage"\s*:\s*null(?=\s*}\s*(?:[\r\n]|$))'
    rb'|(?<=]),\s*"usage"\s*:\s*null(?=\s*,\s*"obfuscation")'
)
_EVENT_ENDS = (b"\r\n\r\n", b"\n\n", b"\r\r")
_MOST_HELD = 1 << 20
"""Bytes of one event beyond which it cannot be the small usage chunk, and is let through."""
_KEY = b'"usage"'


class Injector:
    """Adds the option to one call's requests, unless its base URL refuses it."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self.added = False

    def add(self, options: Any) -> None:
        """Add the option to a copy of the body in `options`, if the caller left it open."""
        body, extra = options.json_data, options.extra_json
        self.added = False
        if _support.get(self._base_url) is False or not is_mapping(body):
            return
        sent = {**body, **extra} if is_mapping(extra) else body
        asked = sent.get("stream_options")
        if sent.get("stream") is not True or not (asked is None or is_mapping(asked)):
            return
        if asked and "include_usage" in asked:
            return
        wanted = {**(asked or {}), "include_usage": True}
        if is_mapping(extra) and "stream_options" in extra:
            options.extra_json = {**extra, "stream_options": wanted}
        else:
            options.json_data = {**body, "stream_options": wanted}
        self.added = True

    def accepted(self) -> None:
        if self.added:
            _support[self._base_url] = True

    def refused(self, error: Any) -> bool:
        """Whether `error` is about the added option; remembers that, so it is asked once.

        A refusal that names nothing counts only until the base URL has once accepted.
        """
        status = getattr(error, "status_code", None)
        if not self.added or status not in _REFUSALS:
            return False
        response = getattr(error, "response", None)
        text = f"{error} {getattr(response, 'text', '')}"
        named = any(mark in text for mark in _MARKS)
        vague = not (getattr(error, "param", None) or getattr(error, "code", None))
        if not named and not (vague and self._base_url not in _support):
            return False
        _support[self._base_url] = False
        return True

    def hider(self, headers: Any, encoding: str) -> Hider | Transcoder | None:
        """What takes the extra chunk out of the answer; `None` when nothing was added."""
        if not self.added or not headers.get("content-type", "").startswith("text/event-stream"):
            return None
        return Transcoder(encoding, Hider()) if encoding else Hider()


class Hider:
    """Takes the traces of the added option out of a stream of server-sent events.

    Bytes that end inside an event wait for its end, so that no event is judged by halves.
    """

    def __init__(self) -> None:
        self._held = b""
        self._place = slice(0, 0)
        """Where a chunk of this stream has its first choice. Such a chunk is not the extra one."""
        self._nulls = True
        """Whether this stream's chunks say that they have no usage."""

    def feed(self, data: bytes) -> bytes:
        # Once a chunk, on the caller's thread: one whole event with a choice in its usual place.
        if data[self._place] == _CHOICE and data.find(b"\n") == len(data) - 2 and not self._held:
            if data.endswith(_NULL_AT_END):
                return data[:_BEFORE_NULL] + _END
            if data[-1:] == b"\n" and not self._nulls:
                return data
        return self._carefully(data)

    def _carefully(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        if data[-2:] != b"\n\n":
            data = self._hold(data)
        if (place := data.find(_CHOICE)) >= 0:
            self._place, self._nulls = slice(place, place + len(_CHOICE)), _NULL in data
        return self._without_usage(data) if _KEY in data else data

    def flush(self) -> bytes:
        rest, self._held = self._held, b""
        return self._without_usage(rest) if _KEY in rest else rest

    def _hold(self, data: bytes) -> bytes:
        """Keep back what follows the last whole event."""
        ends = [at + len(end) for end in _EVENT_ENDS if (at := data.rfind(end)) >= 0]
        whole = max(ends, default=0)
        if len(data) - whole > _MOST_HELD:
            return data
        self._held = data[whole:]
        return data[:whole]

    def _without_usage(self, data: bytes) -> bytes:
        data = _NULLS.sub(b"", data)
        separator = next((end for end in _EVENT_ENDS if end in data), b"\n\n")
        events = data.split(separator)
        return separator.join(event for event in events if not _only_usage(event))


def _only_usage(event: bytes) -> bool:
    """Whether an event is the one chunk that the option adds: usage, and no choices."""
    if _KEY not in event:
        return False
    _, colon, data = event.partition(b"data:")
    if not colon:
        return False
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return is_dict(chunk) and is_dict(chunk.get("usage")) and chunk.get("choices") == []
