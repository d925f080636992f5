"""Token counts and costs, in the dialects of OpenAI-style APIs.

Sources: https://platform.openai.com/docs/api-reference (usage objects),
https://openrouter.ai/docs/use-cases/usage-accounting, https://docs.x.ai/developers/cost-tracking,
https://api-docs.deepseek.com/api/create-chat-completion,
https://ai.google.dev/gemini-api/docs/openai.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..narrowing import is_mapping
from ..record import Usage

_TICKS_A_DOLLAR = 10**10
_GEMINI_THOUGHTS = re.compile(r"(?:^|/)gemini-(?:2\.5|3)")


def read(raw: Any, provider: str, model: str | None) -> Usage:
    """Read a usage object. What it does not say stays `None`."""
    if not is_mapping(raw):
        return Usage()
    into = details(raw, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    out = details(raw, "completion_tokens_details", "output_tokens_details")
    by_life = details(into, "cache_creation_token_details")  # LiteLLM, of Anthropic's
    usage = Usage(
        input_tokens=count(raw, "prompt_tokens", "input_tokens"),
        output_tokens=count(raw, "completion_tokens", "output_tokens"),
        total_tokens=count(raw, "total_tokens"),
        cache_read_tokens=_first(
            count(into, "cached_tokens"),
            count(raw, "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens"),
            count(raw, "cache_read_input_tokens"),
        ),
        cache_write_tokens=_first(
            count(into, "cache_write_tokens", "cache_creation_tokens"),
            count(raw, "cache_creation_input_tokens"),
        ),
        cache_write_5m_tokens=count(by_life, "ephemeral_5m_input_tokens"),
        cache_write_1h_tokens=count(by_life, "ephemeral_1h_input_tokens"),
        reasoning_tokens=_first(count(out, "reasoning_tokens"), count(raw, "reasoning_tokens")),
        text_input_tokens=count(into, "text_tokens"),
        audio_input_tokens=count(into, "audio_tokens"),
        image_input_tokens=count(into, "image_tokens"),
        text_output_tokens=count(out, "text_tokens"),
        audio_output_tokens=count(out, "audio_tokens"),
        image_output_tokens=count(out, "image_tokens"),
        cached_audio_tokens=count(details(into, "cached_tokens_details"), "audio_tokens"),
        web_searches=_first(
            count(raw, "num_search_queries", "num_sources_used"),
            count(details(raw, "server_tool_use"), "web_search_requests"),
        ),
        audio_seconds=number(raw.get("seconds")) or number(raw.get("prompt_audio_seconds")),
        cost_usd=_cost(raw, provider),
        raw=raw,
    )
    _settle_reasoning(usage, provider, model or "")
    return usage


def _settle_reasoning(usage: Usage, provider: str, model: str) -> None:
    """Make the output count mean the same everywhere: reasoning inside it.

    The exception is Gemini 2.5 and 3, where PostHog itself adds reasoning to the output.
    """
    thinks = bool(_GEMINI_THOUGHTS.search(model))
    given, read_, total = usage.output_tokens, usage.input_tokens, usage.total_tokens
    if provider == "xai" and None not in (given, read_, total):
        usage.output_tokens = max(given or 0, (total or 0) - (read_ or 0))
    elif provider in ("gemini", "vertex") and thinks:
        if usage.reasoning_tokens is None and None not in (given, read_, total):
            unnamed = (total or 0) - (read_ or 0) - (given or 0)
            usage.reasoning_tokens = unnamed if unnamed > 0 else None
    elif thinks and usage.cost_usd is None:
        usage.reasoning_tokens = None  # a gateway's count has them inside already


def _cost(raw: Mapping[str, Any], provider: str) -> float | None:
    """Return the total in USD that the provider says it charged."""
    ticks = number(raw.get("cost_in_usd_ticks"))
    if ticks is not None:
        return ticks / _TICKS_A_DOLLAR
    cost = raw.get("cost", raw.get("estimated_cost"))  # the latter: DeepInfra
    if is_mapping(cost):  # Perplexity
        return number(cost.get("total_cost"))
    total = number(cost)
    if total is None:
        return None
    upstream = number(details(raw, "cost_details").get("upstream_inference_cost"))
    if provider == "openrouter" and raw.get("is_byok") is True and upstream is not None:
        total += upstream
    return total


def details(raw: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the first of `names` that is an object, else an empty one."""
    for name in names:
        if is_mapping(found := raw.get(name)):
            return found
    return {}


def count(raw: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of `names` that is a count; anything else is as good as absent."""
    for name in names if raw else ():
        found = number(raw.get(name))
        if found is not None and found >= 0:
            return int(found)
    return None


def number(value: Any) -> float | None:
    """Return a finite number; anything else is as good as absent."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)
