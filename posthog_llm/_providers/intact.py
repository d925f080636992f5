"""How much of a response the SDK can have read, if its caller did not read to the end.

An SDK that cannot decode something raises and closes the response, as does a caller who stops
reading. The bytes tell the two apart; the caller never received anything after that point.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from .._exchange import Failure
from .._narrowing import is_dict
from .sse import Event

_DONE = b"[DONE]"
_LITERAL = re.compile(rb"[ !#-\[\]-~]*")
"""Text that is the inside of a JSON string without further checks."""


class ReadableEvents:
    """Events up to the one where the SDK stopped: it cannot be parsed, or is an error."""

    def __init__(self, source: Iterable[Event], named: bool) -> None:
        """Wrap events; `named` reads them as Anthropic's SDK does."""
        self._source = source
        self._named = named
        self._mark = b'"text":"' if named else b'"content":"'
        """What precedes the one text in which most events differ from the last one."""
        self._around: tuple[bytes, bytes] | None = None
        """What surrounded the text of the last parsed event."""
        self._is_error = False
        self.failure: Failure | None = None
        self.done = False
        """Whether the event that makes the SDK stop reading has arrived."""

    def __iter__(self) -> Iterator[Event]:
        for offset, data in self._source:
            if data.startswith(_DONE) and not self._named:
                self.done = True
            elif error := self._error(data):
                self.failure = Failure(type(error).__name__, str(error))
                return
            yield offset, data
            if self.done or self._is_error:
                return

    def _error(self, data: bytes) -> Exception | None:
        before, _, rest = data.partition(self._mark)
        text, _, behind = rest.partition(b'"')
        if self._around == (before, behind) and _LITERAL.fullmatch(text):
            return None
        try:
            event = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            return error
        if is_dict(event):
            self._is_error = (
                event.get("type") == "error" if self._named else bool(event.get("error"))
            )
        self._around = (before, behind) if _LITERAL.fullmatch(text) else None
        return None


def decodable(body: bytes) -> tuple[bytes, Failure | None]:
    """Return the body before the first line that is not UTF-8, and the failure.

    SDKs decode complete lines: the last one may lack its end, and its last character some bytes.
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


def last_lines(body: bytes) -> Failure | None:
    """Return the SDK's failure if a body ends within an event in a line that is not UTF-8."""
    lines = body.rpartition(b"\n\n")[2].split(b"\n")
    return next(filter(None, map(_undecodable, lines)), None)


def _undecodable(line: bytes) -> Failure | None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return Failure(type(error).__name__, str(error))
    return None
