"""How much of an answer the SDK can have read, where its caller did not read to the end.

An SDK that meets what it cannot decode raises, and closes the answer like a caller who leaves
it. The bytes tell the two apart; what they say behind that place, the caller never received.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from ..exchange import Failure
from .sse import Event

_DONE = b"[DONE]"
_LITERAL = re.compile(rb"[ !#-\[\]-~]*")
"""Text that needs no look to be the inside of a JSON string."""


class ReadableEvents:
    """Events up to the first whose data the SDK cannot have parsed."""

    def __init__(self, source: Iterable[Event], lines: bytes | None, named: bool) -> None:
        """Take events, and the body whose lines they are made of; `None` where frames are whole.

        `named`: whether the SDK reads only events that have a name, as Anthropic's does.
        """
        self._source = source
        self._lines = lines
        self._named = named
        self._mark = b'"text":"' if named else b'"content":"'
        """What stands before the one text in which most events differ from the last one."""
        self._around: tuple[bytes, bytes] | None = None
        """What stood around the text of the last event that was parsed."""
        self.failure: Failure | None = None
        self.done = False
        """Whether the event came at which the SDK stops to read."""

    def __iter__(self) -> Iterator[Event]:
        for offset, data in self._source:
            if data.startswith(_DONE) and not self._named:
                self.done = True
            elif not self.done and (error := self._error(data)) and self._is_read(offset, data):
                self.failure = Failure(type(error).__name__, str(error))
                return
            yield offset, data

    def _error(self, data: bytes) -> Exception | None:
        before, _, rest = data.partition(self._mark)
        text, _, behind = rest.partition(b'"')
        if self._around == (before, behind) and _LITERAL.fullmatch(text):
            return None
        try:
            json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            return error
        self._around = (before, behind) if _LITERAL.fullmatch(text) else None
        return None

    def _is_read(self, offset: int, data: bytes) -> bool:
        """Whether the SDK parses the data of this event: a whole one, of which it knows what."""
        if self._lines is None:
            return True
        end = self._lines.find(b"\n\n", offset)
        if end < 0 or not self._named:
            return end >= 0
        block = self._lines[offset:end].split(b"\n")
        names = [line[6:].strip() for line in block if line.startswith(b"event:")]
        return bool(data and names and names[-1] and names[-1] != b"ping")


def decodable(body: bytes) -> tuple[bytes, Failure | None]:
    """Return what stands before the first line that is no UTF-8, and what is wrong with it.

    SDKs decode whole lines: the last one may lack its end, and its last character some bytes.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        at = error.start
    else:
        return body, None
    start, end = body.rfind(b"\n", 0, at) + 1, body.find(b"\n", at)
    if end < 0:
        return body, None
    try:
        body[start:end].decode()
    except UnicodeDecodeError as error:
        whole = body.rfind(b"\n\n", 0, start)
        return body[: whole + 2] if whole >= 0 else b"", Failure(type(error).__name__, str(error))
    return body, None  # pragma: no cover - what is wrong with the whole is wrong with its line
