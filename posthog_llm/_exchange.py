"""One call as it was seen: who asked, what went over the wire, and how it ended.

Nothing is parsed yet. Nothing here knows of PostHog, of an SDK or of HTTP libraries.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from ._faults import attribute, text_of
from ._weighing import size_of

KEPT_BYTES = 8 << 20
"""Most bytes of one body that are kept: the first and the last half of this."""
_HEAD, _TAIL = 4 << 10, 8 << 10
"""Bytes of an answer's beginning and end that name the model and the tokens."""
_WEIGHT = 4096
"""Bytes that a call weighs beside its content: most are the headers of its answer."""
_PIECE = 80
"""Bytes that a piece of a streamed body takes beside its own."""
_MOST_NODES = 2000


class Outcome(str, Enum):
    """How a call ended. Every call ends exactly once."""

    OK = "ok"
    ERROR = "error"
    """The provider or the connection failed."""
    CANCELLED = "cancelled"
    """The caller's task was cancelled, timed out from outside, or was interrupted."""
    CLOSED_EARLY = "closed_early"
    """The caller closed the answer before its end. Not a failure of the model."""
    DROPPED = "dropped"
    """The caller let go of the answer without reading or closing it."""


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
    """HTTP status of the answer; `None` when no answer arrived."""
    stack: str | None = None
    """Stack trace, where the failure was raised by a library that calls the provider for us."""


def ended_by(error: BaseException | None) -> Outcome:
    """Return how something ended that an exception ended, or none did.

    What is no `Exception` cancels: each framework has a class of its own for it. A group of
    exceptions is an error where it holds one. (Groups are Python's from 3.11 on, and the
    `exceptiongroup` package's before.)
    """
    if error is None:
        return Outcome.OK
    waiting: list[Any] = [error]
    for _ in range(_MOST_NODES):
        if not waiting:
            break
        found = waiting.pop()
        # Not `isinstance`, which would ask the object itself.
        kind = type(found)  # pyright: ignore[reportUnknownVariableType]
        if issubclass(kind, Exception):
            return Outcome.ERROR
        inner: Any = attribute(found, "exceptions") if issubclass(kind, BaseException) else None
        if type(inner) is tuple or type(inner) is list:
            waiting.extend(inner)  # pyright: ignore[reportUnknownArgumentType]
    return Outcome.CANCELLED


def outcome_of(error: BaseException | None) -> tuple[Outcome, Failure | None]:
    """Return how something ended, and why it failed, described now.

    Keeping the exception would keep the caller's frames alive.
    """
    outcome = ended_by(error)
    if outcome is not Outcome.ERROR:
        return outcome, None
    message = None if error is None else text_of(error)
    return outcome, Failure(type=type(error).__name__, message=message)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The `posthog_*` arguments of a call, a client or a context. `None` means not given."""

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
        return self  # it is frozen, and rides in request options, which some clients copy deeply


@dataclass(frozen=True, slots=True)
class Ambient:
    """What the `posthog` package's own context said when the call started."""

    distinct_id: str | None = None
    session_id: str | None = None
    """Session-replay id (`$session_id`), not the id of an AI session."""
    tags: Mapping[str, Any] = field(default_factory=dict[str, Any])
    privacy_mode: bool = False
    otel: tuple[str, str] | None = None
    """Trace id and span id of the active OpenTelemetry span, hexadecimal."""


@dataclass(slots=True)
class Scope:
    """Who asked and where the event goes, by falling precedence; resolved by the worker.

    Not frozen, as the others are: it is made on the caller's thread, in a fifth of the time.
    """

    call: Arguments = Arguments()
    context: Arguments = Arguments()
    ambient: Ambient = Ambient()
    client: Arguments = Arguments()
    redact: Any = None
    """The client's `posthog_redact` callable, or `None`."""
    default: Any = None
    """Where the event goes that none of these names a destination for; `None`: where the
    environment says, or the `posthog` module."""

    def weight(self) -> int:
        """Return about how many bytes are held for the caller's properties, the client's aside."""
        given = (self.call.properties, self.context.properties, self.ambient.tags)
        return sum(size_of(properties) for properties in given if properties is not None)


@dataclass(slots=True)
class Upload:
    """One file of a multipart request: described, never kept."""

    field: str
    name: str | None
    media_type: str | None
    size: int | None
    """Bytes; `None` when the file's size cannot be known without reading it."""


@dataclass(slots=True)
class Exchange:
    """One call as seen on the wire. Filled on the caller's thread, read by the worker."""

    endpoint: str
    """Name of the endpoint's adapter, e.g. `chat`."""
    id: str
    """UUID of the event."""
    scope: Scope
    started_at: float
    """Unix time of the call's start, seconds."""
    clock: float = 0.0
    """The call's start by a monotonic clock, seconds."""
    base_url: Any = None
    client: Any = None
    """The SDK client that made the call; read for its credentials and its kind."""
    model: str | None = None
    """The model that was asked for; some SDKs move it from the body into the URL."""
    streamed: bool = False
    request: bytes | None = None
    """Body as sent; `None` when it is not in memory (multipart, generators)."""
    form: Mapping[str, Any] | None = None
    """Fields of a multipart request."""
    uploads: Sequence[Upload] = ()
    status: int | None = None
    """HTTP status; `None` when no answer arrived."""
    headers: Any = None
    """Headers of the answer (a mapping with a case-insensitive `get`)."""
    body: bytes | None = None
    """Decoded body of an answer that was read in one piece."""
    encoding: str = ""
    """Content encodings of a streamed body that the HTTP client undoes."""
    chunks: Sequence[bytes] = ()
    """Raw pieces of a streamed body, before content decoding."""
    times: Sequence[float] = ()
    """When each piece arrived, by the clock of `clock`; shorter than `chunks` plus `tail`."""
    tail: Sequence[bytes] = ()
    """Last raw pieces, when the body outgrew what may be kept."""
    received: int = 0
    """Bytes of body that arrived."""
    cut: int = 0
    """Bytes of body that were not kept."""
    content_dropped: int = 0
    """Bytes of request that were let go of, because too much was waiting."""
    ended: float = 0.0
    """Seconds from the start to the end of the call."""
    last_attempt: float = 0.0
    """Seconds from the start to the start of the last HTTP attempt."""
    attempts: int = 0
    outcome: Outcome = Outcome.OK
    failure: Failure | None = None
    sample_rate: float | None = None
    """Share of such calls that are told; `None` when all are."""
    sample_number: float | None = None
    """Number in [0, 1) that was drawn for the trace; `None`: none was, or it was used."""
    only_errors: bool = False
    """Whether sampling left this call out, unless it failed."""
    keep_media: bool = False
    """Whether base64 is sent as it is: the destination has full AI capture enabled."""
    batch: Any = None
    """Which batch the answer holds the results of; `None` for any other answer."""
    deferred: bool = False
    """Whether the worker decides about sampling: it reads which trace or response this is."""
    sent: Any = None
    """Headers of the request: for what they say of the session, and the credentials that must
    not leave."""
    url: Any = None
    """URL of the request: for the credentials in it."""
    resent: Sequence[tuple[Any, Any]] = ()
    """Headers and URLs of what was really sent, where that was another request than was built."""
    content: Any = None
    """What another library told of a call that was not seen on the wire; has `drop_content()`."""
    reader: Any = None
    """Reads `content` into a record; `None`: the endpoint's adapter reads what was seen."""

    own: int | None = None
    """About the bytes of the caller's properties; `None` until it was weighed first."""

    def weight(self) -> int:
        """Return about how many bytes of memory this call holds."""
        if self.own is None:  # once: the caller may go on writing to what it gave
            self.own = self.scope.weight()
        pieces = _PIECE * (len(self.chunks) + len(self.tail))
        return _WEIGHT + self.own + pieces + len(self.request or b"") + self._held()

    def _held(self) -> int:
        """Return how many bytes of the answer are held."""
        if self.content is not None:
            return self.received - self.cut
        held = 0 if self.body is None else len(self.body)
        return held + sum(map(len, self.chunks)) + sum(map(len, self.tail))

    def drop_content(self) -> int:
        """Let go of the content, and keep the ends of the answer, where its numbers stand.

        Returns the bytes that are gone.
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
        """Let go of the content, and of what a failure says: both may hold what is to be hidden."""
        self.drop_content()
        if self.failure is not None:
            self.failure = replace(self.failure, message=None, stack=None)

    def release(self) -> None:
        """Let go of what was kept: the answer may live on in the caller's hands."""
        self.request = self.body = self.form = self.content = None
        self.client = self.sent = self.url = None
        self.chunks = self.times = self.tail = self.resent = ()

    def _cut_stream(self) -> None:
        pieces = [*self.chunks, *self.tail]
        start, end = _within(pieces, _HEAD), len(pieces) - _within(reversed(pieces), _TAIL)
        if start < end:
            self.cut += sum(map(len, pieces[start:end]))
            self.chunks, self.tail = pieces[:start], pieces[end:]


def _within(pieces: Iterable[bytes], most: int) -> int:
    """Return how many of the first pieces have `most` bytes together, and one more."""
    sizes = itertools.accumulate(map(len, pieces))
    return sum(1 for _ in itertools.takewhile(lambda size: size < most, sizes)) + 1
