"""Server-sent events: the bytes of a stream → its events, with their offsets.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .parsing import parse

_DONE = b"[DONE]"
Event = tuple[int, bytes]
"""Offset of an event's last byte in the body, at which the reader has the event; and its data."""


@dataclass(slots=True)
class Folded:
    """The body of the equivalent non-streamed response, assembled from a stream's events."""

    body: dict[str, Any]
    first: int | None
    """Where the first event with content, reasoning or a tool call ends."""
    complete: bool
    """Whether the model finished within the stream."""


def events(body: bytes, named: bool = False) -> Iterator[Event]:
    """Yield the events that the SDKs' decoders find in a body whose lines end in `\\n`.

    `named`: only those with a name and data, as Anthropic's SDK reads them; OpenAI's SDK fails on
    an event without data. An event without its empty line is ignored, except the end marker.
    """
    offset, decoder = 0, _Decoder()
    *blocks, rest = body.split(b"\n\n")
    for block in blocks:
        name, data = b"", block[6:]
        whole = block[:6] == b"data: " and b"\n" not in block
        if not whole and block[:6] == b"event:" and block.count(b"\n") == 1:
            name, mark, data = block[6:].partition(b"\ndata: ")
            whole = mark != b""
        found = (
            ((name, data),)
            if whole and not decoder.id
            else decoder.read((*block.split(b"\n"), b""))
        )
        offset += len(block) + 2
        for name, data in found:
            if not named:
                yield offset - 1, data
                if data[:6] == _DONE:
                    return
            elif data and name.removeprefix(b" ") not in (b"", b"ping"):
                yield offset - 1, data
    if not named:
        yield from ((offset, data) for _, data in decoder.read(rest.split(b"\n")[:-1]))
        if rest[:5] == b"data:" and rest[5:].removeprefix(b" ")[:6] == _DONE:
            yield offset, _DONE


class _Decoder:
    """Decodes event lines as the SDKs do: a kept id makes every further empty line an event."""

    def __init__(self) -> None:
        self.id = b""

    def read(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the name and data of each event that an empty line ends."""
        name, data, retries = b"", list[bytes](), False
        for line in lines:
            if not line:
                if name or data or retries or self.id:
                    yield name, b"\n".join(data)
                name, data, retries = b"", [], False
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            elif field == b"id" and b"\0" not in value:
                self.id = value
            elif field == b"retry":
                retries = retries or _is_number(value)


def _is_number(value: bytes) -> bool:
    try:
        int(value)
    except ValueError:
        return False
    return True


def objects(source: Iterable[Event]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Parse events; skip those that are not JSON objects (a truncated event, a keep-alive)."""
    for offset, data in source:
        parsed = parse(data)
        if isinstance(parsed, dict):
            yield offset, parsed


class RepeatedChunk:
    """Events that differ from the last parsed one only in the text of one string.

    This holds for most events of a stream. They need no parser: comparing what precedes and follows
    the string takes 0.7 instead of 3.8 µs per event.
    """

    def __init__(self, name: str) -> None:
        self._opening = re.compile(rb'"%b"\s*:\s*"' % name.encode())
        self._mark = b""
        """The string's name and opening quote, as written in the last parsed event."""
        self._before: bytes | None = None
        """What preceded the text in the last parsed event; `None`: nothing to compare with."""
        self._behind = b""
        self._texts: list[bytes] = []
        """Texts of the events since, as written in the JSON."""

    def takes(self, data: bytes) -> bool:
        """Take a repeated event; return false if it must be parsed."""
        if self._before is None:
            return False
        before, _, rest = data.partition(self._mark)
        if before != self._before:
            return False
        text, _, behind = rest.partition(b'"')
        if behind != self._behind or text[-1:] == b"\\":
            return False
        self._texts.append(text)
        return True

    def begin(self, data: bytes, said: Any) -> None:
        """Start from this event, if the named string holds the text `said`."""
        opening = self._opening.search(data)
        if opening is None:
            return
        text, _, behind = data[opening.end() :].partition(b'"')
        if parse(b'"%b"' % text) == said:
            self._mark, self._before = opening.group(), data[: opening.start()]
            self._behind = behind

    def end(self) -> str:
        """Return the collected texts as one; the next event must be parsed."""
        text = parse(b'"' + b"".join(self._texts) + b'"') if self._texts else ""
        self._texts.clear()
        self._before = None
        return text if isinstance(text, str) else ""


def lines_unified(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Make every line of a chunked body end in `\\n`.

    The number of pieces stays the same, plus one if the body ends in `\\r`.
    """
    carried = b""
    for piece in pieces:
        text = carried + piece
        carried = b"\r" if text[-1:] == b"\r" else b""
        if b"\r" in text:
            text = text[: len(text) - len(carried)]
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield text
    if carried:
        yield b"\n"
