"""One record → one PostHog event. The only package that knows PostHog's property names.

https://posthog.com/docs/ai-observability
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .._exchange import Ambient, Arguments, Exchange
from .._identity import is_private, merge_identity
from .._narrowing import first_given, is_mapping
from .._privacy import Cleaner, credentials_of
from .._record import Record
from .._settings import settings
from . import call, helpers, step
from .private import CONTENT, without_content

__all__ = ["CONTENT", "CUT_MARK", "LIBRARY", "VERSION", "Event", "build", "builds"]
LIBRARY = "posthog-llm"


def _version() -> str:
    try:
        return version(LIBRARY)
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0"


VERSION = _version()

_NAMES = {"generation": "$ai_generation", "embedding": "$ai_embedding", **step.NAMES}
CUT_MARK = "posthog_llm_content_cut_bytes"
_LARGE = 8 << 20
"""Total size of request and response, in bytes, beyond which the longest texts are cut."""
_LONGEST_TEXT = 256 << 10
"""Characters kept of a text in such a call."""
_LABELS = frozenset(
    {"$ai_model", "posthog_llm_requested_model", "posthog_llm_served_model", "$ai_service_tier"}
    | {"$ai_stop_reason", "posthog_llm_upstream_provider", "posthog_llm_inference_geo"}
    | {"posthog_llm_request_id", "posthog_llm_response_id"}
)
"""Names and words set by a provider, other than content."""
_TITLES = frozenset({"$ai_span_name", "$ai_trace_name"})
"""Names set by the caller, which may contain a credential by mistake."""
_IDS = ("distinct_id", "trace_id", "session_id", "span_id", "parent_id")
_DAY = 86_400
_LONGEST_AGO = 30 * _DAY
"""How long OpenAI keeps a response, in seconds."""
_TOO_LONG = 200
"""Maximum characters of a distinct id; PostHog rejects or cuts longer ones."""


@dataclass(frozen=True, slots=True)
class Event:
    """The arguments of the `posthog` client's `capture`."""

    name: str
    uuid: str
    distinct_id: str
    timestamp: datetime
    properties: dict[str, Any]
    groups: Mapping[str, Any] | None

    def of_nobody(self) -> Event:
        """Return the event as an anonymous one: with an id of its own and no person profile."""
        own_id = str(self.properties.get("$ai_trace_id") or self.uuid)[:_TOO_LONG]
        properties = {**self.properties, "$process_person_profile": False}
        return replace(self, distinct_id=own_id, properties=properties)


def builds(record: Record, private: bool) -> Iterator[Event]:
    """Build a record's event, and one more for each helper model of its response."""
    yield (first := build(record, private))
    for helped in helpers.records(record, first.properties):
        yield build(helped, private)


def build(record: Record, private: bool) -> Event:
    """Build the event of a record.

    `private` is the destination's privacy setting; the call, its context and its client may also
    request privacy, and any one of them suffices.
    """
    exchange, scope = record.exchange, record.exchange.scope
    private = private or record.private or is_private(scope)
    size = len(exchange.request or b"") + exchange.received
    longest = _LONGEST_TEXT if size > _LARGE else None
    secrets = credentials_of(exchange)
    redact = first_given(scope.redact, settings().redact)
    cleaner = Cleaner(secrets, redact, longest, keep_media=exchange.keep_media)
    who = _cleaned(merge_identity(scope, _user(record), record.request.router_arguments), cleaner)
    # A separate cleaner, so that a huge conversation does not affect the caller's properties.
    for_custom = Cleaner(secrets, keep_media=exchange.keep_media)
    # Each process that reads the end of a background response or a batch sends the same event.
    is_read_again = record.response.background or exchange.batch is not None
    trace_id = who.trace_id or (exchange.id if is_read_again else str(uuid.uuid4()))
    read = step.properties if record.kind in step.NAMES else call.properties
    properties = {
        **_identity(who, trace_id, exchange),
        "$ai_user": _router_user(record),
        **read(record, who, private, cleaner),
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
        timestamp=datetime.fromtimestamp(_started_at(record), tz=timezone.utc),
        properties=properties,
        groups=for_custom.plain(who.groups) if who.groups else None,
    )


def _started_at(record: Record) -> float:
    """Return when a call began; for a background response, the provider's time if plausible."""
    seen, created = record.exchange.started_at, record.response.created_at
    return created if created is not None and seen - _LONGEST_AGO < created < seen + _DAY else seen


# -- who -----------------------------------------------------------------------------


def _cleaned(who: Arguments, cleaner: Cleaner) -> Arguments:
    ids = {name: value for name in _IDS if (value := getattr(who, name)) is not None}
    shown: dict[str, Any] = {name: cleaner.identity(value) for name, value in ids.items()}
    return who if shown == ids else replace(who, **shown)


def _user(record: Record) -> str | None:
    """Return the user named in the request, if the client uses it as the distinct id."""
    by_user = getattr(record.exchange.client, "_posthog_request_user", False)
    return record.request.user if by_user else None


def _router_user(record: Record) -> str | None:
    """Return the user that the request names to a router; `None` if it names none."""
    router = record.request.router_arguments
    return None if router is None else router.distinct_id


def _identity(who: Arguments, trace_id: str, exchange: Exchange) -> dict[str, Any]:
    ambient = exchange.scope.ambient
    return {
        "$ai_lib": LIBRARY,
        "$ai_lib_version": VERSION,
        "$ai_trace_id": trace_id,
        "$ai_span_id": who.span_id or exchange.id,
        "$ai_parent_id": who.parent_id,
        "$ai_session_id": who.session_id,
        "$ai_span_name": who.span_name,
        "$ai_trace_name": who.trace_name,
        "$ai_framework": exchange.framework,
        "$session_id": ambient.session_id,
        "$trace_id": f"{ambient.otel[0]:032x}" if ambient.otel else None,
        "$span_id": f"{ambient.otel[1]:016x}" if ambient.otel else None,
    }


# -- what the caller adds ------------------------------------------------------------


def _add_custom(
    properties: dict[str, Any], who: Arguments, ambient: Ambient, cleaner: Cleaner
) -> None:
    """Add the caller's properties; arguments override tags of posthog's context."""
    tags = dict(cleaner.properties(ambient.tags))
    custom = dict(cleaner.properties(who.properties or {}))
    _give_way(properties, {**tags, **custom})
    for name, value in tags.items():
        properties.setdefault(name, value)
    if custom.keys() & call.TOKENS.keys():
        properties["$ai_tokens_source"] = "passthrough"
    properties.update(custom)
    _leave_cost_out(properties)


def _give_way(properties: dict[str, Any], custom: Mapping[str, Any]) -> None:
    """Drop our cost if the caller gives prices or costs: then only theirs apply."""
    has_prices = all(name in custom for name in call.PRICES)
    if not has_prices and not any(name in custom for name in call.COSTS):
        return
    for name in call.COSTS:
        properties.pop(name, None)
    if "$ai_total_cost_usd" in custom:
        properties["$ai_cost_passthrough"] = True


def _leave_cost_out(properties: dict[str, Any]) -> None:
    """Keep PostHog from using the usage object's own `cost` if no total is sent.

    Then the caller's prices apply, or nobody reported what the key's owner pays.
    """
    usage = properties.get("$ai_usage")
    if is_mapping(usage) and "cost" in usage and "$ai_total_cost_usd" not in properties:
        properties["$ai_usage"] = {k: v for k, v in usage.items() if k != "cost"}
