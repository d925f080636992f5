"""Server-sent events: the bytes of a stream → its events, with their place in the bytes.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_DONE = b"[DONE]"
_DECODER = json.JSONDecoder(parse_constant=str)
Event = tuple[int, bytes]
"""Offset of an event's last byte in the body, by which its reader has it; and its data."""


@dataclass(slots=True)
class Folded:
    """The body that a plain call would have had, put together from a stream's events."""

    body: dict[str, Any]
    first: int | None
    """Where the first event with content, reasoning or a tool call ends."""
    complete: bool
    """Whether the model came to its end within the stream."""


def events(body: bytes, named: bool = False) -> Iterator[Event]:
    """Yield the events that the SDKs' decoders find in a body whose lines end in `\\n`.

    `named`: only those that have a name and data, as Anthropic's SDK reads them; OpenAI's fails at
    one without data. What no empty line ends is none, but for the mark of the end.
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
    """Reads the lines of events, as the SDKs do: an id is remembered, and makes an event of each
    further empty line.
    """

    def __init__(self) -> None:
        self.id = b""

    def read(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield name and data of what an empty line ends."""
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
    """Parse events; what is no JSON object (an event cut in two, a keep-alive) is passed over."""
    for offset, data in source:
        parsed = parse(data)
        if isinstance(parsed, dict):
            yield offset, parsed


def parse(data: bytes) -> Any:
    """Parse JSON; `None` where it is none, names for numbers that JSON does not have."""
    try:
        return _DECODER.decode(data.decode("utf-8-sig", "surrogatepass"))
    except (ValueError, RecursionError):
        return None


class RepeatedChunk:
    """Events that differ from the last parsed one in the text of one string alone.

    Most events of a stream do. Such a one needs no parser: what stands before and behind the
    string is compared. It is the difference between 0.7 and 3.8 µs an event.
    """

    def __init__(self, name: str) -> None:
        self._opening = re.compile(rb'"%b"\s*:\s*"' % name.encode())
        self._mark = b""
        """The string's name and opening quote, as they stood in the last parsed event."""
        self._before: bytes | None = None
        """What stood before and behind the text of the last parsed event, if others may follow."""
        self._behind = b""
        self._texts: list[bytes] = []
        """Texts of the events since, as they stood in the JSON."""

    def takes(self, data: bytes) -> bool:
        """Take an event that goes on; false for one that must be parsed."""
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
        """Let events go on from this one, if it says a text where the mark is."""
        opening = self._opening.search(data)
        if opening is None:
            return
        text, _, behind = data[opening.end() :].partition(b'"')
        if parse(b'"%b"' % text) == said:
            self._mark, self._before = opening.group(), data[: opening.start()]
            self._behind = behind

    def end(self) -> str:
        """Return the texts that were taken, as one; what follows must be parsed."""
        text = parse(b'"' + b"".join(self._texts) + b'"') if self._texts else ""
        self._texts.clear()
        self._before = None
        return text if isinstance(text, str) else ""


def lines_unified(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Make every line of a body cut in pieces end in `\\n`.

    The pieces keep their number, but for one more where the body ends in `\\r`.
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
