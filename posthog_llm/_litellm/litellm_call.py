"""What LiteLLM knows about one call, collected on its own thread: references, nothing parsed.

https://docs.litellm.ai/docs/proxy/logging_spec
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .._context import NOTHING
from .._exchange import Arguments, Upload
from .._faults import is_the_programs
from .._narrowing import is_mapping, mapping
from .._observe.dedup import HEADER
from .._observe.uploads import uploads
from .._providers.endpoints import litellm_endpoint
from .._providers.hosts import provider_named, regional
from .._record import Routing
from .metadata import metadata_of, request_headers, request_names


@dataclass(slots=True)
class LiteLLMCall:
    """References to what LiteLLM knows about one attempt; read by the worker."""

    model: str | None
    full_name: str | None
    """The model with LiteLLM's prefix, such as `openai/gpt-5-mini`, as callers write it."""
    provider: str
    input: Any
    parameters: Mapping[str, Any]
    response: Any
    payload: Mapping[str, Any]
    """LiteLLM's `StandardLoggingPayload`; empty if there is none."""
    base_url: str
    headers: Mapping[str, Any]
    """Headers of the provider's response."""
    cost: float | None
    """The cost in USD as computed by LiteLLM; `None` if it knows no price."""
    cache_hit: bool
    streamed: bool
    routing: Routing
    """Which attempt of a request this is."""
    names: Arguments = NOTHING
    """What the request itself names."""
    is_private: bool = False
    uploads: Sequence[Upload] = ()
    first_at: float | None = None
    """Unix time of a stream's first content, in seconds."""

    @classmethod
    def of(cls, kwargs: Mapping[str, Any], noted: Any, response: Any) -> LiteLLMCall:
        """Collect from LiteLLM's record of a call (`model_call_details`)."""
        params, payload = mapping(kwargs.get("litellm_params")), payload_of(kwargs)
        found = metadata_of(kwargs)
        return cls(
            model=_model(kwargs),
            full_name=_full_name(kwargs),
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
            routing=_routing(found, payload),
            names=request_names(kwargs, payload.get("end_user")),
            is_private=_is_private(kwargs),
            uploads=_uploads(kwargs),
        )

    def drop_content(self) -> None:
        """Drop the content and keep the numbers."""
        self.input, self.parameters = None, {}
        self.response = numbers(self.response)
        copy = numbers(self.payload.get("response"))
        kept = {name: self.payload.get(name) for name in ("cost_breakdown", "saved_cache_cost")}
        self.payload = {**kept, "response": copy}


def payload_of(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return LiteLLM's standard payload of a call, empty if there is none."""
    return mapping(kwargs.get("standard_logging_object"))


def endpoint_of(kwargs: Mapping[str, Any]) -> str | None:
    """Return the endpoint of a call; `None` if it runs no model."""
    found = kwargs.get("call_type")
    endpoint = litellm_endpoint(str(getattr(found, "value", found) or ""))
    return None if endpoint is None else endpoint.name


def is_captured_outside(kwargs: Mapping[str, Any]) -> bool:
    """Whether one of our clients outside the gateway captures this call itself."""
    return HEADER in request_headers(kwargs)


def _part(kwargs: Mapping[str, Any]) -> Any:
    """Return what is known of a response that broke off: LiteLLM's usage for the part received."""
    counted = kwargs.get("combined_usage_object")
    return None if counted is None else {"usage": plain(counted)}


def _is_private(kwargs: Mapping[str, Any]) -> bool:
    """Whether LiteLLM's settings, the request, its headers or a guardrail withhold content."""
    try:
        from litellm.litellm_core_utils.redact_messages import should_redact_message_logging

        return bool(should_redact_message_logging(dict(kwargs))) or _is_masked(kwargs)
    except Exception as error:  # if this fails in a new version, withhold what may be private
        if is_the_programs(error):
            raise
        return True


def callbacks() -> Iterator[Any]:
    """Yield everything that LiteLLM calls after a successful call."""
    import litellm

    yield from litellm.success_callback
    yield from litellm._async_success_callback
    yield from litellm.callbacks


def _is_masked(kwargs: Mapping[str, Any]) -> bool:
    """Whether a guardrail masks what is logged of this call: late, and only in some copies."""
    from litellm.integrations.custom_guardrail import CustomGuardrail
    from litellm.types.guardrails import GuardrailEventHooks

    guards = (one for one in callbacks() if isinstance(one, CustomGuardrail))
    mode, data = GuardrailEventHooks.logging_only, dict(kwargs)
    return any(guard.should_run_guardrail(data, mode) for guard in guards)


def _model(kwargs: Mapping[str, Any]) -> str | None:
    """Return the model without LiteLLM's provider prefix."""
    model = kwargs.get("model")
    own = f"{kwargs.get('custom_llm_provider')}/"
    return (model.removeprefix(own) or None) if isinstance(model, str) else None


def _full_name(kwargs: Mapping[str, Any]) -> str | None:
    model, named = _model(kwargs), kwargs.get("custom_llm_provider")
    return f"{named}/{model}" if model and isinstance(named, str) and named else None


def _provider(kwargs: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    named = kwargs.get("custom_llm_provider") or params.get("custom_llm_provider") or ""
    region = params.get("vertex_location") or params.get("vertex_ai_location")
    provider = provider_named(str(named))
    return regional(provider, region if isinstance(region, str) else None)


def _parameters(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's fields; those given to LiteLLM win over those that it sent."""
    given = mapping(kwargs.get("optional_params"))
    return {**_sent(kwargs), **mapping(given.get("extra_body")), **given}


def _sent(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(kwargs.get("additional_args")).get("complete_input_dict"))


def _uploads(kwargs: Mapping[str, Any]) -> list[Upload]:
    sent = _sent(kwargs)
    files = {name: sent[name] for name in ("file", "image") if sent.get(name) is not None}
    return list(uploads(files))


def _cost(kwargs: Mapping[str, Any], response: Any) -> float | None:
    """Return LiteLLM's cost; a zero means an unknown price or a failure."""
    hidden = mapping(getattr(response, "_hidden_params", None))
    found = kwargs.get("response_cost")
    found = hidden.get("response_cost") if found is None else found
    return float(found) if isinstance(found, (int, float)) and found > 0 else None


def _routing(found: Mapping[str, Any], payload: Mapping[str, Any]) -> Routing:
    """Return which attempt of a request this is: the Router and the gateway count them."""
    group = found.get("model_group") or payload.get("model_group")
    return Routing(
        retry_number=_number(found.get("attempted_retries")),
        fallback_number=_number(found.get("attempted_fallbacks")),
        model_group=group if isinstance(group, str) and group else None,
    )


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and value else None


def numbers(response: Any) -> dict[str, Any]:
    """Return what is known of a response besides its content."""
    get = response.get if is_mapping(response) else partial(getattr, response)
    return {name: plain(get(name, None)) for name in ("id", "model", "usage")}


def plain(value: Any) -> Any:
    """Return a LiteLLM response as JSON types; `None` if it cannot be converted."""
    dump = getattr(value, "model_dump", None)
    try:
        return dump(warnings=False) if callable(dump) else value
    except (RecursionError, ValueError):  # a user's callback put it inside itself
        return None
