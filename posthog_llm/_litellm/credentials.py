"""The credentials of a LiteLLM call to its provider; they are removed from everything we send."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._narrowing import mapping

_SECRET = re.compile(r"(?:key|token|secret|password|credentials)$")
"""Names of parameters that authenticate a request."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What LiteLLM's record holds when the request is sent; most of it is dropped afterwards."""

    headers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    posthog_llm_secrets: tuple[str, ...] = ()
    """Keys, tokens and passwords of any kind."""

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Credentials:
        """Collect from LiteLLM's record of a call (`model_call_details`)."""
        return cls(_headers(kwargs), tuple(_secrets(kwargs)))


def _secrets(kwargs: Mapping[str, Any]) -> Iterator[str]:
    for place in _places(kwargs):
        for name, value in place.items():
            if isinstance(value, str) and _SECRET.search(str(name)):
                yield value


def _headers(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    import litellm

    found: dict[str, Any] = {**mapping(litellm.headers)}
    more = mapping(kwargs.get("additional_args"))
    for place in (*_places(kwargs), more, mapping(more.get("complete_input_dict"))):
        for name in ("headers", "extra_headers"):
            found.update(mapping(place.get(name)))
    return found


def _places(kwargs: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return kwargs, mapping(kwargs.get("litellm_params")), mapping(kwargs.get("optional_params"))
