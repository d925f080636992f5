"""One record → one PostHog event. The only place that knows PostHog's property names.

https://posthog.com/docs/ai-observability
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..exchange import Ambient, Arguments
from ..identity import is_private, settled
from ..privacy import Cleaner, credentials_of
from ..record import Record
from . import call, step
from .private import CONTENT, without_content

__all__ = ["CONTENT", "CUT_MARK", "LIBRARY", "VERSION", "Event", "build"]
LIBRARY = "posthog-llm"


def _version() -> str:
    try:
        return version(LIBRARY)
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"


VERSION = _version()

_NAMES = {"generation": "$ai_generation", "embedding": "$ai_embedding", **step.NAMES}
CUT_MARK = "posthog_llm_content_cut_bytes"
_LARGE = 8 << 20
"""Bytes of a request and its answer beyond which their longest texts are cut."""
_LONGEST_TEXT = 256 << 10
"""Characters that are kept of a text in such a call."""
_LABELS = frozenset(
    {"$ai_model", "posthog_llm_requested_model", "posthog_llm_served_model", "$ai_service_tier"}
    | {"$ai_stop_reason", "posthog_llm_upstream_provider"}
    | {"posthog_llm_request_id", "posthog_llm_response_id"}
)
"""Names and words of a provider's, beside its answer."""
_TITLES = frozenset({"$ai_span_name", "$ai_trace_name"})
"""Names that the caller gives, which may hold a credential by mistake."""
_IDS = ("distinct_id", "trace_id", "session_id", "span_id", "parent_id")
_TOO_LONG = 200
"""Characters of a distinct id beyond which PostHog refuses or cuts it."""


@dataclass(frozen=True, slots=True)
class Event:
    """What the `posthog` client's `capture` takes."""

    name: str
    uuid: str
    distinct_id: str
    timestamp: datetime
    properties: dict[str, Any]
    groups: Mapping[str, Any] | None
    size: int
    """Bytes that came over the wire for it; about what its content weighs."""


def build(record: Record, private: bool) -> Event:
    """Tell a record as an event.

    `private` is what the destination says of privacy; the call, its context and its client
    may say so too, and any of them suffices.
    """
    exchange, scope = record.exchange, record.exchange.scope
    by_user = getattr(exchange.client, "_posthog_request_user", False)
    private = private or record.private or is_private(scope)
    size = len(exchange.request or b"") + exchange.received
    longest = _LONGEST_TEXT if size > _LARGE else None
    secrets = credentials_of(exchange)
    cleaner = Cleaner(secrets, scope.redact, longest, keep_media=exchange.keep_media)
    user = record.asked.user if by_user else None
    who = _cleaned(settled(scope, user, record.asked.named), cleaner)
    # Apart, so that a conversation without end leaves the caller's properties alone.
    for_custom = Cleaner(secrets, keep_media=exchange.keep_media)
    trace_id = who.trace_id or str(uuid.uuid4())
    tell = step.properties if record.kind in step.NAMES else call.properties
    properties = {
        **_identity(who, exchange.id, trace_id, scope.ambient),
        "$ai_user": record.asked.named.distinct_id if record.asked.named else None,
        **tell(record, who, private, cleaner),
    }
    properties = {name: value for name, value in properties.items() if value is not None}
    for name in _LABELS & properties.keys():
        properties[name] = cleaner.label(properties[name])
    for name in _TITLES & properties.keys():
        properties[name] = cleaner.text(properties[name])
    _add_custom(properties, who, scope.ambient, for_custom)
    if cut := record.content_cut + cleaner.cut + for_custom.cut:
        properties[CUT_MARK] = cut
    if private:
        properties = without_content(properties)
    if who.distinct_id is None:
        properties.setdefault("$process_person_profile", False)
    return Event(
        name=_NAMES[record.kind],
        uuid=exchange.id,
        distinct_id=(who.distinct_id or trace_id)[:_TOO_LONG],
        timestamp=datetime.fromtimestamp(exchange.started_at, tz=timezone.utc),
        properties=properties,
        groups=for_custom.plain(who.groups) if who.groups else None,
        size=size,
    )


# -- who -----------------------------------------------------------------------------


def _cleaned(who: Arguments, cleaner: Cleaner) -> Arguments:
    ids = {name: value for name in _IDS if (value := getattr(who, name)) is not None}
    shown: dict[str, Any] = {name: cleaner.identity(value) for name, value in ids.items()}
    return who if shown == ids else replace(who, **shown)


def _identity(who: Arguments, event_id: str, trace_id: str, ambient: Ambient) -> dict[str, Any]:
    return {
        "$ai_lib": LIBRARY,
        "$ai_lib_version": VERSION,
        "$ai_trace_id": trace_id,
        "$ai_span_id": who.span_id or event_id,
        "$ai_parent_id": who.parent_id,
        "$ai_session_id": who.session_id,
        "$ai_span_name": who.span_name,
        "$ai_trace_name": who.trace_name,
        "$session_id": ambient.session_id,
        "$trace_id": ambient.otel[0] if ambient.otel else None,
        "$span_id": ambient.otel[1] if ambient.otel else None,
    }


# -- what the caller adds ------------------------------------------------------------


def _add_custom(
    properties: dict[str, Any], who: Arguments, ambient: Ambient, cleaner: Cleaner
) -> None:
    """Add the caller's properties: tags of posthog's context below, arguments on top."""
    for name, value in cleaner.properties(ambient.tags):
        properties.setdefault(name, value)
    for name, value in cleaner.properties(who.properties or {}):
        if name in call.TOKENS:
            properties["$ai_tokens_source"] = "passthrough"
        properties[name] = value
