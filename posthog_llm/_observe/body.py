"""The thin wrapper around a streaming body: it passes bytes through and notes times and the end.

The SDK's stream object stays the SDK's own. Only the byte stream below it is ours, so every
way of reading (objects, events, lines, bytes, raw bytes) is seen, and so is not reading.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from .._encoding import undone
from .._exchange import KEPT_BYTES, Outcome
from .._faults import guarded
from .call_queue import call_queue

if TYPE_CHECKING:
    from .call import Call

_PART = 1 << 20
"""Bytes of a batch's results that are queued at a time."""
_PIECE_COST = 100
"""Overhead of keeping one chunk, in bytes."""
_BEGUN = 8 << 10
"""Bytes kept of the beginning of an event whose middle is cut out."""
_DATA = b"\ndata:"
"""How the data of an event begins; it may begin with a chunk, or be split between two."""


def wrap(response: Any, call: Call) -> None:
    """Wrap the byte stream of `response` in ours, of the same kind and package."""
    keep = call.keeps(response.headers)
    encoding = call.exchange.encoding = undone(response)
    usage_filter = call.injector.usage_filter(response, encoding) if call.injector else None
    kind: Any = type(response.stream)  # pyright: ignore[reportUnknownVariableType]
    response.stream = _body_class(kind)(response.stream, call, _Keeper(call, keep), usage_filter)


@cache
def _body_class(inner: Any) -> type[_Body]:
    """Return our wrapper for one kind of byte stream.

    HTTP packages check `isinstance` against their own base classes, and SDK major versions use
    different packages, so the bases are taken from the stream itself. A stream that supports both
    sync and async reading, such as httpx's `ByteStream`, still does.
    """
    bases = [base for base in inner.__mro__ if base.__name__ in _READING]
    if not bases:
        raise TypeError(f"{inner} is not a byte stream")
    ours = [_READING[base.__name__] for base in bases]
    return cast("type[_Body]", type("ObservedByteStream", (*ours, *bases), {}))


class _Keeper:
    """Keeps a body's first and last bytes, and the arrival times of the first chunks."""

    def __init__(self, call: Call, keep: bool) -> None:
        self._exchange = call.exchange
        self.chunks: list[bytes] = []
        self.times: list[float] = []
        call.exchange.chunks, call.exchange.times = self.chunks, self.times
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._border = b"\n"
        self._part_size = 0
        self.room = KEPT_BYTES // 2 if keep else 0
        self._keep = keep

    def _in_parts(self, chunk: bytes) -> None:
        """Queue a batch's results in parts: all of them are captured, however many there are."""
        self.chunks.append(chunk)
        self._part_size += len(chunk)
        if self._part_size >= _PART:
            part = replace(self._exchange, chunks=list(self.chunks), received=self._part_size)
            self.chunks.clear()
            self._part_size = 0
            call_queue.put(part)

    def overflow(self, chunk: bytes) -> None:
        """Keep a chunk that does not fit into the head, in a window over the end."""
        exchange = self._exchange
        if exchange.batch is not None:
            self._in_parts(chunk)
            return
        if not self._keep:
            exchange.cut += len(chunk)
            return
        exchange.tail = self._tail
        self._tail.append(chunk)
        self._tail_size += len(chunk) + _PIECE_COST
        while self._tail_size > KEPT_BYTES // 2 and len(self._tail) > 1:
            gone = self._tail.popleft()
            self._tail_size -= len(gone) + _PIECE_COST
            exchange.cut += len(gone)
            if not exchange.encoding:
                self._note_beginning(gone)

    def _note_beginning(self, gone: bytes) -> None:
        """Keep how the last event before the window begins: there are its type and its status."""
        exchange, known = self._exchange, len(self._exchange.last_begun)
        at = gone.rfind(_DATA)
        border = self._border + gone[: len(_DATA)]
        self._border = border[-len(_DATA) :] if len(gone) < len(_DATA) else gone[-len(_DATA) :]
        if at >= 0 or _DATA in border:
            exchange.last_begun = b"\n" + gone[max(0, at) :][:_BEGUN]
        elif known:
            exchange.last_begun += gone[: max(0, _BEGUN - known)]
        exchange.cut += known - len(exchange.last_begun)


class _Body:
    def __init__(self, inner: Any, call: Call, keeper: _Keeper, usage_filter: Any) -> None:
        self._inner = inner
        self._call = call
        self._keeper = keeper
        self._usage_filter = usage_filter
        self._is_read = self._is_read_again = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __del__(self, dropped: Outcome = Outcome.DROPPED) -> None:
        # May run in any thread, while any lock is held, and during module teardown.
        call = self.__dict__.get("_call")  # missing if construction was interrupted
        if call is not None:
            call.end(dropped)

    def _passage(self) -> Generator[bytes, bytes, None]:
        """Receive each chunk as it arrives, and yield what the caller may see of it.

        A generator, because it keeps everything in local variables: this runs once per chunk, on
        the caller's thread, for sync and async bodies.
        """
        keeper = self._keeper
        keep, stamp, room = keeper.chunks.append, keeper.times.append, keeper.room
        clock, size, cost = perf_counter, len, _PIECE_COST
        show = self._usage_filter and self._usage_filter.feed
        chunk = b""
        while True:
            chunk = yield chunk
            room -= size(chunk) + cost
            if room > 0:
                keep(chunk)
                stamp(clock())
            else:
                keeper.overflow(chunk)
            if show and chunk:  # raises what the reader would get for an undecodable body
                chunk = show(chunk)

    def _through(self) -> Callable[[bytes], bytes]:
        """Return the function for each chunk: only the first reading is the call's response.

        The newest SDKs read the byte stream again after the last event, for what is left on the
        connection. Some streams then start over, others refuse.
        """
        if self._is_read:
            self._is_read_again = True
            return bytes
        self._is_read = True
        passage = self._passage()
        next(passage)
        return passage.send

    def _end(self) -> bytes:
        """Return what was held back until the body's end; raises if its encoding is incomplete."""
        if self._is_read_again:
            return b""
        rest: bytes = self._usage_filter.end() if self._usage_filter else b""
        self._usage_filter = None
        return rest

    def _broke(self, error: BaseException) -> bytes | None:
        """Note an error of the body; return what the caller may still see before it."""
        if isinstance(error, GeneratorExit) or self._is_read_again:
            return None  # the reader stopped; closing reports it
        if not isinstance(error, Exception):
            self._call.broke(error)
            return None
        if self._usage_filter and self._usage_filter.error is error:
            self._call.undecodable(error)
        else:
            self._call.broke(error)
        return self._rest()

    @guarded
    def _rest(self) -> bytes:
        """Return what was held back when the body broke."""
        usage_filter, self._usage_filter = self._usage_filter, None
        return usage_filter.flush() if usage_filter else b""


class Watch(_Body):
    """Notes a body that the SDK reads in its own way. Let go unread, it is dropped."""

    def __init__(self, call: Call) -> None:
        super().__init__(None, call, _Keeper(call, True), None)

    def begin(self) -> Callable[[bytes], bytes]:
        """Return the function for each piece that arrives."""
        return self._through()

    def read(self) -> None:
        """Note that the body was read to its end."""
        self._call.end(Outcome.OK)

    def left(self, error: BaseException) -> None:
        """Note that reading ended early: closed, cancelled or broken."""
        if isinstance(error, GeneratorExit):
            self._call.end(Outcome.CLOSED_EARLY)
        else:
            self._call.broke(error)


class _SyncBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        through = self._through()
        try:
            for chunk in self._inner:
                if chunk := through(chunk):
                    yield chunk
            if rest := self._end():
                yield rest
        except BaseException as error:
            if left := self._broke(error):
                yield left
            raise
        self._call.end(Outcome.OK)

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._call.end(Outcome.CLOSED_EARLY)


class _AsyncBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        through = self._through()
        pieces = self._inner.__aiter__()
        try:
            async for chunk in pieces:
                if chunk := through(chunk):
                    yield chunk
            if rest := self._end():
                yield rest
        except BaseException as error:
            if left := self._broke(error):
                yield left
            raise
        finally:
            if hasattr(pieces, "aclose"):
                await pieces.aclose()
        self._call.end(Outcome.OK)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        except BaseException as error:
            self._call.broke(error)
            raise
        finally:
            self._call.end(Outcome.CLOSED_EARLY)


_READING = {"SyncByteStream": _SyncBody, "AsyncByteStream": _AsyncBody}
"""Our wrapper for each way of reading a byte stream, by the name of its base class."""
