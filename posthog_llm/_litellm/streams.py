"""LiteLLM's streams: when their first content arrives, and whether they break off.

LiteLLM itself reports the time of the first piece, whatever it contains, and gives a stream that
breaks off a stop reason. So we watch its streams where they are read.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections import deque
from collections.abc import AsyncGenerator
from types import CodeType
from typing import Any

from .._exchange import Failure, Outcome
from .._faults import guarded
from .._providers import messages, responses
from .._providers.sse import events
from . import attempt as attempts
from .wrapping import wrap

_READING = ("__anext__", "_finalize_completed_stream")
"""Methods of LiteLLM's stream that read it, and close it at its end."""
_SAID = ("content", "reasoning_content", "thinking_blocks", "tool_calls", "function_call", "audio")
"""Fields with content in a LiteLLM delta."""
_INCOMPLETE = Failure("IncompleteStream", "the stream ended before the answer did")
_LAST = 8
"""The last event of a stream is within this many pieces."""


@guarded
def watch() -> None:
    """Watch LiteLLM's streams, from now on."""
    from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

    reading = _codes_of_reading(CustomStreamWrapper)
    wrap(CustomStreamWrapper, "aclose", functools.partial(_noting_close, reading=reading))
    wrap(CustomStreamWrapper, "chunk_creator", _noting_chunks)
    wrap(CustomStreamWrapper, "finish_reason_handler", _noting_end)
    for more in (_watch_responses, _watch_messages):
        with contextlib.suppress(ImportError):  # a version of LiteLLM that has it elsewhere
            more()


def _watch_responses() -> None:
    from litellm.responses.streaming_iterator import BaseResponsesAPIStreamingIterator

    wrap(BaseResponsesAPIStreamingIterator, "_process_chunk", _noting_events)


def _watch_messages() -> None:
    from litellm.llms.anthropic.pass_through.messages import streaming_iterator

    kind: Any = streaming_iterator.BaseAnthropicMessagesStreamingIterator
    wrap(kind, "_convert_chunk_to_sse_format", _noting_pieces)
    wrap(kind, "_handle_streaming_logging", _noting_pieces_end)
    from litellm.proxy.pass_through_endpoints.streaming_handler import PassThroughStreamingHandler

    wrap(PassThroughStreamingHandler, "chunk_processor", _noting_passage)


def _attempt_of(call: Any) -> attempts.Attempt | None:
    return attempts.of(getattr(call, "model_call_details", {}))


# -- chat --------------------------------------------------------------------------------


def _noting_chunks(create: Any) -> Any:
    def noting(stream: Any, *args: Any, **kwargs: Any) -> Any:
        chunk = create(stream, *args, **kwargs)
        if chunk is not None:
            _note_chunk(stream.logging_obj, chunk)
        return chunk

    return noting


@guarded
def _note_chunk(call: Any, chunk: Any) -> None:
    found = _silent(call)
    if found is None:
        return
    for choice in chunk.choices:
        delta = getattr(choice, "delta", None)
        if getattr(choice, "text", None) or any(getattr(delta, name, None) for name in _SAID):
            found.first_at = time.time()
            return


def _silent(call: Any) -> attempts.Attempt | None:
    """Return the attempt of a stream that has said nothing yet."""
    found = _attempt_of(call)
    return found if found is not None and found.first_at is None else None


def _noting_end(handle: Any) -> Any:
    def noting(stream: Any, *args: Any, **kwargs: Any) -> Any:
        _note_end(stream)
        return handle(stream, *args, **kwargs)

    return noting


@guarded
def _note_end(stream: Any) -> None:
    """Note a stream that ends without a stop reason: LiteLLM makes one up."""
    if stream.received_finish_reason is None and stream.intermittent_finish_reason is None:
        _note_break(stream.logging_obj, _INCOMPLETE)


def _note_break(call: Any, failure: Failure) -> None:
    if (found := _attempt_of(call)) is not None:
        found.broke = failure


# -- responses ---------------------------------------------------------------------------


def _noting_events(process: Any) -> Any:
    def noting(stream: Any, chunk: Any, *args: Any, **kwargs: Any) -> Any:
        _note_event(stream.logging_obj, chunk)
        return process(stream, chunk, *args, **kwargs)

    return noting


@guarded
def _note_event(call: Any, chunk: Any) -> None:
    found = _silent(call)
    if found is None or not isinstance(chunk, str):
        return
    if responses.says(chunk.encode("utf-8", "replace")):
        found.first_at = time.time()


# -- messages, as bytes ------------------------------------------------------------------


class _Pieces:
    """What was seen of a stream of Anthropic events that passes through, however it is split."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._last: deque[bytes] = deque(maxlen=_LAST)

    @guarded
    def note(self, piece: Any) -> None:
        if not isinstance(piece, bytes):
            return
        self._last.append(piece)
        found = _silent(self._call)
        if found is None:
            return
        if messages.fold(events(b"".join(self._last), named=True)).first is not None:
            found.first_at = time.time()

    @guarded
    def note_end(self) -> None:
        """Note an error among the last events, or a missing end."""
        last = b"".join(self._last)
        folded = messages.fold(events(last[max(0, last.find(b"event:")) :], named=True))
        failure = messages.read_response(folded.body, "anthropic").failure
        if failure is not None or not folded.complete:
            _note_break(self._call, failure or _INCOMPLETE)


def _noting_passage(process: Any) -> Any:
    def noting(*args: Any, **kwargs: Any) -> Any:
        pieces = process(*args, **kwargs)
        is_messages = str(getattr(kwargs.get("endpoint_type"), "value", "")) == "anthropic"
        return _noted(pieces, kwargs.get("litellm_logging_obj")) if is_messages else pieces

    return noting


async def _noted(pieces: Any, call: Any) -> AsyncGenerator[Any]:
    seen = _Pieces(call)
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            seen.note(piece)
            yield piece
    seen.note_end()


def _noting_pieces(convert: Any) -> Any:
    def noting(stream: Any, chunk: Any, *args: Any, **kwargs: Any) -> Any:
        piece = convert(stream, chunk, *args, **kwargs)
        seen = vars(stream).get("_posthog_llm_seen")
        if seen is None:
            seen = stream._posthog_llm_seen = _Pieces(stream.litellm_logging_obj)
        seen.note(piece)
        return piece

    return noting


def _noting_pieces_end(handle: Any) -> Any:
    def noting(stream: Any, *args: Any, **kwargs: Any) -> Any:
        seen = vars(stream).get("_posthog_llm_seen")
        if seen is not None and not kwargs.get("stream_teardown"):
            seen.note_end()
        return handle(stream, *args, **kwargs)

    return noting


# -- closing -----------------------------------------------------------------------------


def _codes_of_reading(stream: Any) -> frozenset[CodeType]:
    """Return the code that reads a stream; it also closes the stream at its end."""
    methods = (getattr(stream, name, None) for name in _READING)
    return frozenset(m.__code__ for m in methods if m is not None)


def _noting_close(aclose: Any, reading: frozenset[CodeType]) -> Any:
    def noting(stream: Any, *args: Any, **kwargs: Any) -> Any:
        # LiteLLM closes a failing stream before it reports the failure. Only the calling code tells
        # that from `aclose()` by the reader.
        here = inspect.currentframe()
        caller = here.f_back if here is not None else None
        _closed(stream, by_itself=caller is not None and caller.f_code in reading)
        return aclose(stream, *args, **kwargs)

    return noting


@guarded
def _closed(stream: Any, *, by_itself: bool) -> None:
    """Note that a stream was closed; if it closed itself, LiteLLM reports next how it ended."""
    call = getattr(stream, "logging_obj", None)
    if parked := getattr(call, "_deferred_stream_complete_args", None):
        attempts.note_response(call, parked[0])  # to be captured after the gateway's guardrails
        return
    found = _attempt_of(call)
    if not by_itself and found is not None and found.response is None:
        found.end(Outcome.CLOSED_EARLY)
