"""What LiteLLM holds of one call, gathered on its own thread: references, nothing parsed.

https://docs.litellm.ai/docs/proxy/logging_spec
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .._context import NOTHING
from .._exchange import Arguments, Upload
from .._faults import is_the_programs
from .._narrowing import is_mapping, mapping
from .._observe.call import uploads
from .._observe.dedup import HEADER
from .._providers.endpoints import litellm_endpoint
from .._providers.hosts import provider_named, regional
from .metadata import metadata_of, request_headers, request_names

_COUNTS = {
    "attempted_retries": "posthog_llm_retry_number",
    "attempted_fallbacks": "posthog_llm_fallback_number",
}


@dataclass(slots=True)
class LiteLLMCall:
    """References to what LiteLLM holds of one attempt; read by the worker."""

    model: str | None
    provider: str
    input: Any
    parameters: Mapping[str, Any]
    response: Any
    payload: Mapping[str, Any]
    """LiteLLM's `StandardLoggingPayload`; empty where it made none."""
    base_url: str
    headers: Mapping[str, Any]
    """Headers of the provider's answer."""
    cost: float | None
    """What LiteLLM reckons the call costs, USD; `None` where it knows no price."""
    cache_hit: bool
    streamed: bool
    routing: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Which attempt of a request this is, as properties of ours."""
    names: Arguments = NOTHING
    """What the request itself names."""
    is_private: bool = False
    uploads: Sequence[Upload] = ()
    first_at: float | None = None
    """Unix time at which a stream first said something, seconds."""

    @classmethod
    def of(cls, kwargs: Mapping[str, Any], noted: Any, response: Any) -> LiteLLMCall:
        """Gather from LiteLLM's record of a call (`model_call_details`)."""
        params, payload = mapping(kwargs.get("litellm_params")), payload_of(kwargs)
        found = metadata_of(kwargs)
        return cls(
            model=_model(kwargs),
            provider=_provider(kwargs, params),
            input=kwargs.get("messages") if noted is None else noted,
            parameters=_parameters(kwargs),
            response=_part(kwargs) if response is None else response,
            payload=payload,
            base_url=str(params.get("api_base") or payload.get("api_base") or "").rstrip("/"),
            headers=mapping(kwargs.get("response_headers")),
            cost=_cost(kwargs, response),
            cache_hit=kwargs.get("cache_hit") is True or payload.get("cache_hit") is True,
            streamed=bool(kwargs.get("stream")),
            routing=dict(_routing(found, payload)),
            names=request_names(kwargs, payload.get("end_user")),
            is_private=_is_private(kwargs),
            uploads=_uploads(kwargs),
        )

    def drop_content(self) -> None:
        """Let go of the content, and keep the numbers."""
        self.input, self.parameters = None, {}
        self.response = numbers(self.response)
        copy = numbers(self.payload.get("response"))
        kept = {name: self.payload.get(name) for name in ("cost_breakdown", "saved_cache_cost")}
        self.payload = {**kept, "response": copy}


def payload_of(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return LiteLLM's standard payload of a call, empty where there is none."""
    return mapping(kwargs.get("standard_logging_object"))


def endpoint_of(kwargs: Mapping[str, Any]) -> str | None:
    """Return the endpoint of a call; `None` where it runs no model."""
    found = kwargs.get("call_type")
    endpoint = litellm_endpoint(str(getattr(found, "value", found) or ""))
    return None if endpoint is None else endpoint.name


def is_captured_outside(kwargs: Mapping[str, Any]) -> bool:
    """Whether a client of ours, outside the gateway, tells this call itself."""
    return HEADER in request_headers(kwargs)


def _part(kwargs: Mapping[str, Any]) -> Any:
    """Return what is known of an answer that broke off: LiteLLM counts what came of it."""
    counted = kwargs.get("combined_usage_object")
    return None if counted is None else {"usage": plain(counted)}


def _is_private(kwargs: Mapping[str, Any]) -> bool:
    """Whether LiteLLM's settings, the request, its headers or a guardrail keep content back."""
    try:
        from litellm.litellm_core_utils.redact_messages import should_redact_message_logging

        return bool(should_redact_message_logging(dict(kwargs))) or _is_masked(kwargs)
    except Exception as error:  # whatever changed there, content that may be meant to stay stays
        if is_the_programs(error):
            raise
        return True


def callbacks() -> Iterator[Any]:
    """Yield what LiteLLM calls when a call has succeeded, whichever that is."""
    import litellm

    yield from litellm.success_callback
    yield from litellm._async_success_callback
    yield from litellm.callbacks


def _is_masked(kwargs: Mapping[str, Any]) -> bool:
    """Whether a guardrail masks what is logged of this call: late, and in some copies only."""
    from litellm.integrations.custom_guardrail import CustomGuardrail
    from litellm.types.guardrails import GuardrailEventHooks

    guards = (one for one in callbacks() if isinstance(one, CustomGuardrail))
    mode, data = GuardrailEventHooks.logging_only, dict(kwargs)
    return any(guard.should_run_guardrail(data, mode) for guard in guards)


def _model(kwargs: Mapping[str, Any]) -> str | None:
    """Return the model without the provider that LiteLLM takes before a slash."""
    model = kwargs.get("model")
    own = f"{kwargs.get('custom_llm_provider')}/"
    return (model.removeprefix(own) or None) if isinstance(model, str) else None


def _provider(kwargs: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    named = kwargs.get("custom_llm_provider") or params.get("custom_llm_provider") or ""
    region = params.get("vertex_location") or params.get("vertex_ai_location")
    provider = provider_named(str(named))
    return regional(provider, region if isinstance(region, str) else None)


def _parameters(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's fields; those that LiteLLM was given before those that it sent."""
    given = mapping(kwargs.get("optional_params"))
    return {**_sent(kwargs), **mapping(given.get("extra_body")), **given}


def _sent(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(kwargs.get("additional_args")).get("complete_input_dict"))


def _uploads(kwargs: Mapping[str, Any]) -> list[Upload]:
    sent = _sent(kwargs)
    files = {name: sent[name] for name in ("file", "image") if sent.get(name) is not None}
    return list(uploads(files))


def _cost(kwargs: Mapping[str, Any], response: Any) -> float | None:
    """Return LiteLLM's cost; a zero is a price that it does not know, or a failure."""
    hidden = mapping(getattr(response, "_hidden_params", None))
    found = kwargs.get("response_cost")
    found = hidden.get("response_cost") if found is None else found
    return float(found) if isinstance(found, (int, float)) and found > 0 else None


def _routing(found: Mapping[str, Any], payload: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield which attempt of a request this is: the Router and the gateway count them."""
    for name, ours in _COUNTS.items():
        if isinstance(number := found.get(name), int) and number:
            yield ours, number
    group = found.get("model_group") or payload.get("model_group")
    if isinstance(group, str) and group:
        yield "posthog_llm_model_group", group


def numbers(response: Any) -> dict[str, Any]:
    """Return what is known of an answer beside its content."""
    get = response.get if is_mapping(response) else partial(getattr, response)
    return {name: plain(get(name, None)) for name in ("id", "model", "usage")}


def plain(value: Any) -> Any:
    """Return an answer of LiteLLM's as JSON types; `None` where it cannot be written as such."""
    dump = getattr(value, "model_dump", None)
    try:
        return dump(warnings=False) if callable(dump) else value
    except (RecursionError, ValueError):  # a callback of the user's put it inside itself
        return None
