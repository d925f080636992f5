"""One call as observed: identity, what went over the wire, and how it ended.

Nothing is parsed yet. Nothing here knows about PostHog, an SDK or HTTP libraries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from ._faults import attribute, text_of
from ._narrowing import is_dict
from ._weighing import size_of

KEPT_BYTES = 8 << 20
"""Most bytes of one body that are kept: half from its start, half from its end."""
_HEAD, _TAIL = 4 << 10, 8 << 10
"""Bytes of a response's start and end that contain the model and the tokens."""
_WEIGHT = 4096
"""Bytes that a call takes besides its content: mostly the headers of its response."""
_PIECE = 80
"""Overhead of a chunk of a streamed body, in bytes."""
_MOST_NODES = 2000


class Outcome(str, Enum):
    """How a call ended. Every call ends exactly once."""

    OK = "ok"
    ERROR = "error"
    """The provider or the connection failed."""
    CANCELLED = "cancelled"
    """The caller's task was cancelled, timed out from outside, or was interrupted."""
    CLOSED_EARLY = "closed_early"
    """The caller closed the response before its end. Not a failure of the model."""
    DROPPED = "dropped"
    """The caller abandoned the response without reading or closing it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed."""

    type: str
    """Class name of the exception, or the provider's error type."""
    message: str | None = None
    """Text of the error. May echo the prompt, so privacy mode withholds it."""
    code: str | None = None
    """The provider's machine-readable code, e.g. `context_length_exceeded`."""
    status: int | None = None
    """HTTP status of the response; `None` if there was none."""
    stack: str | None = None
    """Stack trace, if the failure was raised by a library that calls the provider for us."""


def ended_by(error: BaseException | None) -> Outcome:
    """Return how something ended, by the exception that ended it, if any.

    An exception that is not an `Exception` means cancellation: each framework has its own class.
    An exception group is an error if it contains one. (Groups are built into Python from 3.11,
    and come from the `exceptiongroup` package before.)
    """
    if error is None:
        return Outcome.OK
    waiting: list[Any] = [error]
    for _ in range(_MOST_NODES):
        if not waiting:
            break
        found = waiting.pop()
        # Not `isinstance`, which would call the object's own code.
        kind = type(found)  # pyright: ignore[reportUnknownVariableType]
        if issubclass(kind, Exception):
            return Outcome.ERROR
        inner: Any = attribute(found, "exceptions") if issubclass(kind, BaseException) else None
        if type(inner) is tuple or type(inner) is list:
            waiting.extend(inner)  # pyright: ignore[reportUnknownArgumentType]
    return Outcome.CANCELLED


def outcome_of(error: BaseException | None) -> tuple[Outcome, Failure | None]:
    """Return how something ended, and why it failed."""
    outcome = ended_by(error)
    if error is None or outcome is not Outcome.ERROR:
        return outcome, None
    return outcome, describe(error)


def describe(error: BaseException) -> Failure:
    """Describe an exception now: keeping it would keep the caller's frames alive.

    The SDKs' exceptions, and LiteLLM's, name the status of the response and the provider's code.
    Google's call them `code` and `status`.
    """
    status, code = attribute(error, "status_code"), attribute(error, "code")
    if status is None and type(code) is int and 400 <= code < 600:
        status, code = code, attribute(error, "status")
    return Failure(
        type=type(error).__name__,
        message=text_of(error),
        code=code if isinstance(code, str) and code else _code_in(attribute(error, "body")),
        status=status if type(status) is int else None,
    )


def _code_in(body: Any) -> str | None:
    """Return the type in an Anthropic error's body: `{"type": "error", "error": {"type": …}}`."""
    error = body.get("error") if is_dict(body) else None
    code = error.get("type") if is_dict(error) else None
    return code if isinstance(code, str) else None


@dataclass(slots=True, unsafe_hash=True)
class Arguments:
    """The `posthog_*` arguments of a call, a client or a context. `None` means not given.

    Nobody changes one: many share it. It is not frozen, because several are created on the caller's
    thread at each call and step, and a frozen one takes ten times as long.
    """

    distinct_id: str | None = None
    trace_id: str | None = None
    session_id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None
    span_name: str | None = None
    trace_name: str | None = None
    properties: Mapping[str, Any] | None = None
    groups: Mapping[str, Any] | None = None
    privacy_mode: bool | None = None
    provider_override: str | None = None
    client: Any = None
    capture: bool | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Arguments:
        return self  # shared, and attached to request options, which some clients deep-copy


@dataclass(slots=True, unsafe_hash=True)
class Ambient:
    """The `posthog` package's own context when the call started. Nobody changes it."""

    distinct_id: str | None = None
    session_id: str | None = None
    """Session replay id (`$session_id`), not the id of an AI session."""
    tags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    privacy_mode: bool = False
    otel: tuple[int, int] | None = None
    """Trace id and span id of the active OpenTelemetry span."""


_NOT_GIVEN = Arguments()
_NO_AMBIENT = Ambient()


@dataclass(slots=True)
class Scope:
    """Identity and destination, in order of precedence; resolved by the worker."""

    call: Arguments = _NOT_GIVEN
    context: Arguments = _NOT_GIVEN
    ambient: Ambient = _NO_AMBIENT
    client: Arguments = _NOT_GIVEN
    redact: Any = None
    """The client's `posthog_redact` callable, or `None`."""
    default: Any = None
    """The destination if none of these names one; `None` means that of the environment, or the
    `posthog` module."""

    def weight(self) -> int:
        """Return the approximate bytes of the caller's properties, without the client's."""
        given = (self.call.properties, self.context.properties, self.ambient.tags)
        return sum(size_of(properties) for properties in given if properties)


@dataclass(slots=True)
class Upload:
    """One file of a multipart request: described, never stored."""

    field: str
    name: str | None
    media_type: str | None
    size: int | None
    """Bytes; `None` if the file's size is unknown without reading it."""


@dataclass(slots=True)
class Exchange:
    """One call as seen on the wire. Filled on the caller's thread, read by the worker."""

    endpoint: str
    """Name of the endpoint's adapter, e.g. `chat`."""
    id: str
    """UUID of the event."""
    scope: Scope
    started_at: float
    """Unix time of the call's start, in seconds."""
    clock: float = 0.0
    """The call's start by a monotonic clock, in seconds."""
    base_url: Any = None
    client: Any = None
    """The SDK client that made the call; used for its credentials and its kind."""
    model: str | None = None
    """The requested model; some SDKs move it from the body into the URL."""
    streamed: bool = False
    request: bytes | None = None
    """Body as sent; `None` if it is not in memory (multipart, generators)."""
    form: Mapping[str, Any] | None = None
    """Fields of a multipart request."""
    uploads: Sequence[Upload] = ()
    status: int | None = None
    """HTTP status; `None` if there was no response."""
    headers: Any = None
    """Headers of the response (a mapping with a case-insensitive `get`)."""
    body: bytes | None = None
    """Decoded body of a response that was read in one piece."""
    encoding: str = ""
    """Content encodings of a streamed body, which the HTTP client decodes."""
    chunks: Sequence[bytes] = ()
    """Raw chunks of a streamed body, before content decoding."""
    times: Sequence[float] = ()
    """When each chunk arrived, by the clock of `clock`; shorter than `chunks` plus `tail`."""
    tail: Sequence[bytes] = ()
    """Last raw chunks, if the body exceeded what may be kept."""
    last_begun: bytes = b""
    """How the last event before `tail` begins: a single one may exceed what is kept."""
    received: int = 0
    """Bytes of the body that arrived."""
    cut: int = 0
    """Bytes of the body that were not kept."""
    content_dropped: int = 0
    """Bytes of the request that were dropped, because too much was waiting."""
    ended: float = 0.0
    """Seconds from the start to the end of the call."""
    last_attempt: float = 0.0
    """Seconds from the start to the start of the last HTTP attempt."""
    attempts: int = 0
    outcome: Outcome = Outcome.OK
    failure: Failure | None = None
    sample_rate: float | None = None
    """Share of such calls that are captured; `None` means all."""
    sample_number: float | None = None
    """Number in [0, 1) that was drawn for the trace; `None` if none was, or it was used."""
    only_errors: bool = False
    """Whether sampling drops this call unless it failed."""
    keep_media: bool = False
    """Whether base64 is sent unchanged: the destination has full AI capture enabled."""
    batch: Any = None
    """The batch whose results the response holds; `None` for any other response."""
    deferred: bool = False
    """Whether the worker decides about sampling, once it has read the trace or response id."""
    sent: Any = None
    """Headers of the request: for the session that they name, and the credentials that must not
    be sent on."""
    url: Any = None
    """URL of the request: for the credentials in it."""
    resent: Sequence[tuple[Any, Any]] = ()
    """Headers and URLs of the requests really sent, if they differ from the one built."""
    content: Any = None
    """What another library reported about a call not seen on the wire; has `drop_content()`."""
    reader: Any = None
    """Reads `content` into a record; `None` means that the endpoint's adapter reads the call."""

    framework: str | None = None
    """The framework in whose step the call was made, such as `langchain`."""

    own: int | None = None
    """Approximate bytes of the caller's properties; `None` until first measured."""

    def weight(self) -> int:
        """Return the approximate bytes of memory that this call holds."""
        if self.own is None:  # once: the caller may keep changing the properties
            self.own = self.scope.weight()
        if self.content is not None:
            return _WEIGHT + self.own + self.received - self.cut
        pieces = _PIECE * (len(self.chunks) + len(self.tail))
        held = 0 if self.body is None else len(self.body)
        held += sum(map(len, self.chunks)) + sum(map(len, self.tail))
        return _WEIGHT + self.own + pieces + len(self.request or b"") + held

    def drop_content(self) -> int:
        """Drop the content, but keep the ends of the response, which contain its numbers.

        Returns the number of bytes dropped.
        """
        before = self.weight()
        self.content_dropped += len(self.request or b"")
        self.request = None
        if self.content is not None:
            self.content.drop_content()
            self.cut = self.received
        elif self.body is not None and len(self.body) > _HEAD + _TAIL:
            self.cut += len(self.body) - _HEAD - _TAIL
            self.body = self.body[:_HEAD] + self.body[-_TAIL:]
        elif self.chunks and not self.encoding:
            self._cut_stream()
        return before - self.weight()

    def withhold(self) -> None:
        """Drop the content, and a failure's texts: both may contain what must be hidden."""
        self.drop_content()
        if self.failure is not None:
            self.failure = replace(self.failure, message=None, stack=None)

    def release(self) -> None:
        """Release what was kept: the caller may hold the response for longer."""
        self.request = self.body = self.form = self.content = None
        self.client = self.sent = self.url = None
        self.chunks = self.times = self.tail = self.resent = ()
        self.last_begun = b""

    def _cut_stream(self) -> None:
        pieces = [*self.chunks, *self.tail]
        start, end = _within(pieces, _HEAD), len(pieces) - _within(reversed(pieces), _TAIL)
        if start < end:
            self.cut += sum(map(len, pieces[start:end]))
            self.chunks, self.tail = pieces[:start], pieces[end:]


def _within(pieces: Iterable[bytes], most: int) -> int:
    """Return how many of the first chunks have `most` bytes together, plus one."""
    sizes = itertools.accumulate(map(len, pieces))
    return sum(1 for _ in itertools.takewhile(lambda size: size < most, sizes)) + 1
