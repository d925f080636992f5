"""What a LiteLLM call says about itself besides its content: user, trace and project.

https://docs.litellm.ai/docs/observability/posthog_integration
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from .._context import NOTHING, merged
from .._delivery.destinations import Project, environment, is_url
from .._exchange import Arguments
from .._narrowing import is_mapping, is_sequence, mapping
from .._providers import openrouter

SLOTS = ("metadata", "litellm_metadata")
_TRUE = frozenset({"true", "1", "yes"})
_ARGUMENTS = {
    "user_id": "distinct_id",
    "trace_id": "trace_id",
    "session_id": "session_id",
    "parent_run_id": "parent_id",
    "parent_id": "parent_id",
    "generation_name": "span_name",
    "trace_name": "trace_name",
}
_MOST_PARTS = 10_000
"""Maximum number of strings, numbers and so on in a field of the caller's."""
_DEEPEST = 50
"""Maximum nesting depth of such a field."""
_GROUPS = ("groups", "$groups")
_TAKEN = frozenset({*_ARGUMENTS, *_GROUPS, "no-log", "turn_off_message_logging"})
# What LiteLLM and its gateway write into the same mapping as the caller.
_INTERNAL = frozenset(
    {"endpoint", "caching_groups", "headers", "hidden_params", "model_group", "deployment"}
    | {"model_group_alias", "model_group_size", "model_info", "api_base", "deployment_model_name"}
    | {"original_model_group", "attempted_fallbacks", "attempted_retries", "max_retries"}
    | {"previous_models", "request_retry_count", "queue_time_seconds", "raw_request"}
    | {"caller_tags", "inherited_tags", "user_agent", "used_client_oauth_token", "usage_object"}
    | {"global_max_parallel_requests", "applied_guardrails", "guardrails", "routing_decision"}
    | {"file_checksum", "agent_id", "cold_storage_object_key", "previous_response_id"}
    | {"specific_deployment", "team_alias", "team_id", "auth_metadata", "prompt_integration"}
    | {"mcp_tool_call_metadata", "vector_store_request_metadata", "prompt_management_metadata"}
    | {"saved_cache_cost", "batch_models", "fallback_depth", "model_id", "error_information"}
    | {
        "client_disconnected",
        "disable_global_guardrails",
        "disable_global_guardrail",
        "policies",
        "applied_policies",
    }
)
_INTERNAL_STARTS = (
    *("_", "user_api_", "litellm_", "requester_", "standard_logging_", "llm_api_", "x-"),
    *("llm_provider-", "posthog_", "internal_", "proxy_", "spend_logs_", "logging_", "rate-limit"),
)


_KNOWN_OF_KEYS = {
    "key_alias": "user_api_key_alias",
    "team_id": "user_api_key_team_id",
    "team_alias": "user_api_key_team_alias",
    "org_id": "user_api_key_org_id",
    "org_alias": "user_api_key_org_alias",
    "project_id": "user_api_key_project_id",
    "project_alias": "user_api_key_project_alias",
    "user_id": "user_api_key_user_id",
    "user_email": "user_api_key_user_email",
    "end_user_id": "user_api_key_end_user_id",
}
"""What the gateway knows about the key of a request; never the key itself."""


@dataclass(frozen=True, slots=True)
class OfKeys:
    """Which of the gateway's facts become groups and properties, if configured."""

    groups: Mapping[str, str] = field(default_factory=dict[str, str])
    properties: Sequence[str] = ()

    @classmethod
    def validated(cls, groups: Any, properties: Any) -> OfKeys:
        """Raises `TypeError` or `ValueError` for a name that the gateway does not know."""
        if not is_mapping(groups):
            raise TypeError(f"groups must be a mapping, not {type(groups).__name__}")
        if not is_sequence(properties):
            raise TypeError(f"properties must be a list of names, not {type(properties).__name__}")
        for name in (*groups.values(), *properties):
            if name not in _KNOWN_OF_KEYS:
                known = ", ".join(_KNOWN_OF_KEYS)
                raise ValueError(
                    f"LiteLLM's gateway knows no {name!r} of a key: use one of {known}"
                )
        return cls(dict(groups), tuple(properties))

    def read(self, kwargs: Mapping[str, Any]) -> Arguments:
        """Return what is known about the key of a call."""
        if not (self.groups or self.properties):
            return NOTHING
        found = metadata_of(kwargs)
        known = {name: found.get(field) for name, field in _KNOWN_OF_KEYS.items()}
        groups = {kind: known[name] for kind, name in self.groups.items() if known[name]}
        properties = {name: known[name] for name in self.properties if known[name]}
        return Arguments(groups=groups or None, properties=properties or None)


OF_NO_KEYS = OfKeys()


def metadata_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's metadata, from either of the places where LiteLLM keeps it."""
    params = mapping(kwargs.get("litellm_params"))
    return {**mapping(params.get(SLOTS[1])), **mapping(params.get(SLOTS[0]))}


def number(kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the retry number and the fallback number of a call."""
    found = metadata_of(kwargs)
    counts = (found.get(name) for name in ("attempted_retries", "attempted_fallbacks"))
    return tuple(count if isinstance(count, int) else 0 for count in counts)


def _of_gateway(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request that the gateway's client sent; empty outside the gateway."""
    return mapping(mapping(kwargs.get("litellm_params")).get("proxy_server_request"))


def is_left(kwargs: Mapping[str, Any]) -> bool:
    """Whether the gateway's client disconnected before the end of the response."""
    places = (metadata_of(kwargs), mapping(kwargs.get("metadata")))
    return any(place.get("client_disconnected") is True for place in places)


def request_headers(kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that the gateway's client sent, in lower case."""
    request = _of_gateway(kwargs)
    return {str(k).lower(): str(v) for k, v in mapping(request.get("headers")).items()}


def arguments(kwargs: Mapping[str, Any], fields: frozenset[str] | None = None) -> Arguments:
    """Return a call's metadata as the arguments of a call of our clients.

    `fields` are the names that may be read; `None` means all of them.
    """
    found = metadata_of(kwargs)
    if fields is not None:
        found = {name: value for name, value in found.items() if name in fields}
    named: dict[str, Any] = {
        field: text
        for name, field in _ARGUMENTS.items()
        if (text := _id(found.get(name))) is not None
    }
    groups = next((found[name] for name in _GROUPS if is_mapping(found.get(name))), None)
    return Arguments(
        **named,
        groups=dict(groups) if groups else None,
        properties=dict(_custom(kwargs, found)) or None,
        client=project(kwargs, found),
    )


def _id(value: Any) -> str | None:
    """Return an id as text; `None` if it is not an id."""
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID)):
        return None
    try:
        return str(value) or None
    except ValueError:  # more digits than Python converts
        return None


def request_names(kwargs: Mapping[str, Any], end_user: Any) -> Arguments:
    """Return what the request itself names: the end user, and what OpenRouter would read.

    https://openrouter.ai/docs/guides/features/broadcast
    """
    extra = mapping(mapping(kwargs.get("optional_params")).get("extra_body"))
    by_header = request_headers(kwargs).get(openrouter.SESSION_HEADER)
    own = Arguments(
        distinct_id=_id(end_user) or _id(kwargs.get("user")),
        trace_id=_id(kwargs.get("litellm_trace_id")),  # one for all attempts of a request
    )
    return merged(own, openrouter.names(extra, by_header) or NOTHING)


def _custom(kwargs: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the caller's own fields; in the gateway, only those that its client sent."""
    sent = mapping(found.get("requester_metadata")) if _of_gateway(kwargs) else found
    for name, value in sent.items():
        is_internal = name in _INTERNAL or str(name).startswith(_INTERNAL_STARTS)
        if name not in _TAKEN and not is_internal and _is_plain(value):
            yield str(name), value


def _is_plain(value: Any) -> bool:
    """Whether a value is plain JSON: LiteLLM keeps its own objects next to the caller's.

    A value that contains itself, is nested too deeply or has too many parts is not.
    """
    level = [value]
    left = _MOST_PARTS
    for _ in range(_DEEPEST):
        left -= len(level)
        below: list[Any] = []
        for item in level:
            if is_mapping(item):
                names: list[Any] = list(item)
                if not all(isinstance(name, str) for name in names):
                    return False
                below.extend(item.values())
            elif is_sequence(item):
                below.extend(item)
            elif item is not None and not isinstance(item, (str, int, float)):
                return False
            if len(below) > left:
                return False
        if not below:
            return True
        level = below
    return False


def project(kwargs: Mapping[str, Any], found: Mapping[str, Any]) -> Project | None:
    """Return the project that a request names; `None` means the logger's own.

    Raises `ValueError` for a host that is not an http(s) URL.
    """
    vetted = mapping(kwargs.get("standard_callback_dynamic_params"))
    places = (vetted, kwargs, found)
    key = _first(places, "posthog_api_key")
    host = _first(places, "posthog_api_url", "posthog_host")
    if key is None and (host is None or _of_gateway(kwargs)):
        # The gateway lets only its owner name a key; a host alone could steal the owner's.
        return None
    own = environment()
    return Project(key or own.api_key, checked_host(host) if host else own.host)


def _first(places: tuple[Mapping[str, Any], ...], *names: str) -> str | None:
    values = (place.get(name) for name in names for place in places)
    return next((value.strip() for value in values if isinstance(value, str) and value), None)


def checked_host(host: str) -> str:
    """Return a PostHog URL. Raises `ValueError` unless it is an http(s) URL with a host."""
    if not is_url(host):
        raise ValueError(
            f"the PostHog URL {host!r} must begin with http:// or https:// and name a host: "
            "fix POSTHOG_API_URL, POSTHOG_HOST or posthog_api_url"
        )
    return host.rstrip("/")


def is_withheld(kwargs: Mapping[str, Any]) -> bool:
    """Whether the call opts out of logging: `no-log` as an argument or in its metadata."""
    params = mapping(kwargs.get("litellm_params"))
    return any(
        str(place.get("no-log", "")).lower() in _TRUE for place in (params, metadata_of(kwargs))
    )


def disables(kwargs: Mapping[str, Any], names: frozenset[str]) -> bool:
    """Whether the request disables one of the callbacks `names`.

    https://docs.litellm.ai/docs/proxy/dynamic_logging#disabling-callbacks
    """
    listed: Any = request_headers(kwargs).get("x-litellm-disable-callbacks")
    if listed is None:
        dynamic = mapping(kwargs.get("standard_callback_dynamic_params"))
        listed = dynamic.get("litellm_disabled_callbacks") or ()
    words = listed.split(",") if isinstance(listed, str) else listed
    return not names.isdisjoint(str(word).strip().lower() for word in words)
