"""Removing the effects of the added usage option from a stream, before the SDK reads it.

What servers send only because of `include_usage`:

- OpenAI (https://platform.openai.com/docs/api-reference/chat-streaming), vLLM, SGLang, Ollama,
  llama.cpp, text-generation-inference: a chunk with `usage` and `"choices": []`, and
  `"usage": null` on the others. Ollama's completions have a usage of zeros instead of null,
  and llama.cpp puts its `timings` on this chunk instead of on the one before.
- LiteLLM: a chunk with `usage`, in newer versions with a `cost`, and one choice without content.
- Others: speeds, an estimated cost, or server notes besides the counts or the choices.

So a chunk with token counts and without choices is hidden, whatever else it contains, unless it
has what servers also send without the option: an error, sources, or OpenRouter's record of what
was charged.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .._faults import is_the_programs, report
from .._narrowing import is_dict, is_list

_KEY = b'"usage"'
_CHOICE = re.compile(rb'"choices": ?\[\{')
_END = b"}\n\n"
_NULL_AT_END = b',"usage":null' + _END
_SPACED_NULL_AT_END = b', "usage": null' + _END
_BEFORE_NULL = -len(_NULL_AT_END)
# A field of the chunk itself: its last one, or after the choices; not a nested field.
_WITHIN = (
    rb'(?<=]),\s*"usage"\s*:\s*null(?=\s*,\s*"obfuscation")'
    rb'|(?:(?<=data: \{)|(?<=data:\{))"usage"\s*:\s*null\s*,\s*'
)
_NULLS_WITHIN = re.compile(_WITHIN)
"""The same, for an event whose end has not arrived yet."""
_NULLS = re.compile(
    rb',\s*"usage"\s*:\s*(?:null|\{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0\})'
    rb"(?=\s*}\s*(?:[\r\n]|$))|" + _WITHIN
)
_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
_ENDS = re.compile(rb"\n\r?\n|\r\r")
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_BLANK = b"\xef\xbb\xbf\r\n\t "
"""What may precede the first field: a byte order mark, and empty lines."""
_MOST_HELD = 64 << 10
"""Bytes above which an event cannot be the small usage chunk, and is passed through."""
_OVERLAP = 256
"""Bytes of such an event that are held back, so that no match is split."""
_CALLERS = frozenset(
    {"error", "errors", "cost_details", "is_byok", "citations", "search_results", "sources"}
    | {"images", "related_questions", "annotations", "prompt_filter_results"}
)
"""Fields, of the chunk or its usage, that make it the caller's."""


class UsageFilter:
    """Removes the effects of the added option from a stream of server-sent events.

    Incomplete events are held until they end, so that events are judged whole. A stream that does
    not begin like server-sent events passes through unchanged.
    """

    error: Exception | None = None
    """The interface of `Transcoder`; always `None`, as nothing here raises."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_size = 0
        self._near = b""
        """The last held bytes: an event's end may be split."""
        self._place, self._choice = slice(0, 0), b"-"
        """Where chunks of this stream have their first choice, and how it begins."""
        self._beginning: bytes | None = b""
        """The stream's first bytes, until they show whether it consists of events."""
        self._is_other = False

    def feed(self, data: bytes) -> bytes:
        # Fast path, per chunk on the caller's thread: one whole event, a choice in its usual place.
        if (
            data[self._place] == self._choice
            and not self._held
            and data.find(b"\n") == len(data) - 2
            and data[-1:] == b"\n"
        ):
            if data.endswith(_NULL_AT_END):
                return data[:_BEFORE_NULL] + _END
            if _KEY not in data:
                return data
        try:
            return self._carefully(data)
        except Exception as error:  # an internal fault: the caller gets everything
            if is_the_programs(error):
                raise
            report("UsageFilter.feed", error)
            return self._taken() + data

    def _carefully(self, data: bytes) -> bytes:
        if self._beginning is not None:
            self._look(data)
        if self._is_other:
            return self._taken() + data
        near = self._near + data
        if b"\r" in near:
            end = max((at + len(e) for e in _EVENT_ENDS if (at := near.rfind(e)) >= 0), default=0)
        else:
            at = near.rfind(b"\n\n")
            end = at + 2 if at >= 0 else 0
        if not end:
            return self._hold(data)
        rest = len(near) - end
        whole = data[:-rest] if rest else data
        if self._held:
            whole = b"".join((*self._held, whole))
            self._held, self._held_size, self._near = [], 0, b""
        if whole[self._place] != self._choice and (choice := _CHOICE.search(whole)):
            self._place, self._choice = slice(*choice.span()), choice.group()
        shown = without_usage(whole)
        return shown + self._hold(data[-rest:]) if rest else shown

    def _look(self, data: bytes) -> None:
        """Check whether the stream begins like server-sent events."""
        start = ((self._beginning or b"") + data).lstrip(_BLANK)[: max(map(len, _FIELDS))]
        self._is_other = not any(start.startswith(field[: len(start)]) for field in _FIELDS)
        is_clear = self._is_other or start.startswith(_FIELDS)
        self._beginning = None if is_clear else start

    def _hold(self, data: bytes) -> bytes:
        """Hold back a part of an event; return the bytes that need not wait."""
        self._held.append(data)
        self._held_size += len(data)
        self._near = data[-2:] if len(data) > 1 else (self._near + data)[-2:]
        if self._held_size <= _MOST_HELD:
            return b""
        taken = self._taken()
        self._hold(taken[-_OVERLAP:])
        return _NULLS_WITHIN.sub(b"", taken[:-_OVERLAP])

    def _taken(self) -> bytes:
        taken = b"".join(self._held)
        self._held.clear()
        self._held_size, self._near = 0, b""
        return taken

    def flush(self) -> bytes:
        rest = self._taken()
        if self._is_other:
            return rest
        try:
            return without_usage(rest)
        except Exception as error:
            if is_the_programs(error):
                raise
            report("UsageFilter.flush", error)
            return rest

    end = flush


def without_usage(data: bytes) -> bytes:
    """Return events without the option's effects."""
    # No string in JSON contains these bytes: its quotes are escaped.
    data = data.replace(_NULL_AT_END, _END).replace(_SPACED_NULL_AT_END, _END)
    if _KEY not in data:
        return data
    shown: list[bytes] = []
    start = 0
    for found in _ENDS.finditer(data):
        shown.append(_shown(data[start : found.end()]))
        start = found.end()
    shown.append(_shown(data[start:]))
    return b"".join(shown)


def _shown(event: bytes) -> bytes:
    if _KEY not in event:
        return event
    lines = event.splitlines()
    text = b"\n".join(line[5:] for line in lines if line[:5] == b"data:")
    if text and len(text) <= _MOST_HELD and _is_usage_alone(text):
        return b""
    return _NULLS.sub(b"", event)  # also at the end of a partly passed-through event


def _is_usage_alone(text: bytes) -> bool:
    """Whether a chunk has token counts, and nothing that is the caller's."""
    try:
        chunk = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not is_dict(chunk) or not is_dict(usage := chunk.get("usage")):
        return False
    if not any(key.endswith("_tokens") for key in usage):
        return False
    found = (part.get(name) for part in (chunk, usage) for name in _CALLERS)
    return all(map(_is_empty, found)) and _says_nothing(chunk.get("choices"))


def _says_nothing(choices: Any) -> bool:
    if _is_empty(choices):
        return True
    if not is_list(choices) or len(choices) != 1 or not is_dict(choice := choices[0]):
        return False
    delta = choice.get("delta")
    silent = is_dict(delta) and all(_is_empty(value) for value in delta.values())
    said = (value for key, value in choice.items() if key not in ("index", "delta"))
    return (delta is None or silent) and all(_is_empty(value) for value in said)


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or value == {}
