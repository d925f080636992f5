"""Token counts and costs, in the dialects of OpenAI-style APIs.

Sources: https://platform.openai.com/docs/api-reference (usage objects),
https://openrouter.ai/docs/use-cases/usage-accounting, https://docs.x.ai/developers/cost-tracking,
https://api-docs.deepseek.com/api/create-chat-completion,
https://ai.google.dev/gemini-api/docs/openai.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from .._narrowing import is_mapping
from .._record import Usage
from . import costs

N = TypeVar("N", int, float)
_MOST = 2**53
"""No provider counts beyond this: JSON parsers have no exact integers there."""
_DIGITS = re.compile(r"[0-9]{1,15}")
_DECIMAL = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_REASONING_ADDED = re.compile(r"(?:^|/)gemini-(?:2\.5|3(?:\.\d+)?)-[^/]*$", re.IGNORECASE)
_GOOGLE = ("gemini", "vertex", "google-")
_CACHE_WRITES = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_LEAVE_OUT = ("xai", *_GOOGLE)
"""Providers that exclude reasoning from the output; they do not always report it."""


def read(raw: Any, provider: str) -> Usage:
    """Read a usage object as it is; see `normalized`. What it does not report stays `None`."""
    if not is_mapping(raw):
        return Usage()
    into = details(raw, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    out = details(raw, "completion_tokens_details", "output_tokens_details", "output_token_details")
    by_life = details(into, "cache_creation_token_details", "cache_creation")  # LiteLLM, Alibaba
    of_cache = details(into, "cached_tokens_details")
    return Usage(
        input_tokens=count(raw, "prompt_tokens", "input_tokens"),
        output_tokens=count(raw, "completion_tokens", "output_tokens"),
        total_tokens=count(raw, "total_tokens"),
        cache_read_tokens=_first(
            count(into, "cached_tokens"),
            count(raw, "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens"),
            count(raw, "cache_read_input_tokens"),
        ),
        cache_write_tokens=_first(
            count(into, *_CACHE_WRITES),
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
        cached_audio_tokens=count(of_cache, "audio_tokens", "cached_audio_tokens"),
        cached_image_tokens=count(of_cache, "image_tokens", "cached_image_tokens"),
        web_searches=_first(
            count(raw, "num_search_queries", "num_sources_used"),
            count(details(raw, "server_tool_use"), "web_search_requests"),
            count(into, "web_search_requests"),
            count(details(raw, "server_side_tool_usage_details"), "web_search_calls"),
        ),
        audio_seconds=_first(*(seconds(raw.get(n)) for n in ("seconds", "prompt_audio_seconds"))),
        cost_usd=costs.of_usage(raw),
        raw=raw,
    )


def normalized(usage: Usage, model: str | None, provider: str) -> Usage:
    """Return the usage to report under the name `model`, which decides how PostHog counts.

    `output_tokens` plus what PostHog adds to it is what was charged.
    """
    if usage.raw is None:  # manual capture: the caller's counts are trusted, reasoning included
        is_added = usage.reasoning_tokens and adds_reasoning(model or "")
        return _with_reasoning(usage, model or "", provider) if is_added else usage
    excluded = _are_cache_tokens_excluded(usage, provider)
    if excluded is not usage.cache_tokens_excluded:
        usage = replace(usage, cache_tokens_excluded=excluded)
    counted = _with_lifetimes(_with_reasoning(usage, model or "", provider))
    of_input = (counted.audio_input_tokens, counted.image_input_tokens, counted.text_input_tokens)
    audio, image, text = _shares(counted.input_tokens, *of_input)
    of_output = (
        *(counted.audio_output_tokens, counted.image_output_tokens),
        counted.text_output_tokens,
    )
    audio_out, image_out, text_out = _shares(counted.output_tokens, *of_output)
    if (audio, image, text, audio_out, image_out, text_out) == (*of_input, *of_output):
        return counted
    return replace(
        counted,
        audio_input_tokens=audio,
        image_input_tokens=image,
        text_input_tokens=text,
        audio_output_tokens=audio_out,
        image_output_tokens=image_out,
        text_output_tokens=text_out,
    )


def _are_cache_tokens_excluded(usage: Usage, provider: str) -> bool | None:
    """Whether the input excludes cached tokens: the total adds them, or they exceed the input.

    Some gateways to Claude put Claude's own counts into an OpenAI-style response. If a provider
    excludes reasoning from the output, an equal number of reasoning tokens also explains the total.
    """
    given, cached = usage.input_tokens or 0, cached_tokens(usage)
    in_total = usage.total_tokens == given + (usage.output_tokens or 0) + cached
    if provider.startswith(_LEAVE_OUT) and usage.reasoning_tokens == cached:
        in_total = False
    return True if cached and (in_total or cached > given) else usage.cache_tokens_excluded


def cached_tokens(usage: Usage) -> int:
    """Return the tokens that were read from a cache or written to one."""
    written = usage.cache_write_tokens
    if written is None:
        written = (usage.cache_write_5m_tokens or 0) + (usage.cache_write_1h_tokens or 0)
    return (usage.cache_read_tokens or 0) + written


def _with_lifetimes(usage: Usage) -> Usage:
    """Report both cache lifetimes or neither: PostHog prices a single one as five minutes."""
    short, long = usage.cache_write_5m_tokens, usage.cache_write_1h_tokens
    if (short is None) == (long is None):
        return usage
    rest = max(0, (usage.cache_write_tokens or 0) - (short or 0) - (long or 0))
    return replace(
        usage,
        cache_write_5m_tokens=rest if short is None else short,
        cache_write_1h_tokens=rest if long is None else long,
    )


def adds_reasoning(model: str) -> bool:
    """Whether PostHog adds reasoning to the output of a model with this name.

    https://github.com/PostHog/posthog, `costs/output-costs.ts`.
    """
    return _REASONING_ADDED.search(model) is not None


def _with_reasoning(usage: Usage, model: str, provider: str) -> Usage:
    """Use the total to decide whether the output includes reasoning; some providers exclude it."""
    outside = _outside(usage, model, provider)
    if not adds_reasoning(model):
        return (
            replace(usage, output_tokens=(usage.output_tokens or 0) + outside) if outside else usage
        )
    if outside is None and usage.raw is not None and provider.startswith(_GOOGLE):
        return usage  # Google's own endpoint excludes it
    # Even if a cost was reported: the caller's own prices may replace it.
    return replace(usage, reasoning_tokens=outside or None)


def _outside(usage: Usage, model: str, provider: str) -> int | None:
    """Return the reasoning tokens outside the output; `None` if no total shows them.

    Some providers count reasoning only in the total. The others count other things there.
    """
    given, total, reasoning = usage.output_tokens, usage.total_tokens, usage.reasoning_tokens
    if reasoning is not None and given is not None and reasoning > given:
        return reasoning  # Perplexity counts it nowhere else
    if usage.input_tokens is None or given is None or total is None or usage.cache_tokens_excluded:
        return None
    rest = max(0, total - usage.input_tokens - given)
    if reasoning:
        return min(rest, reasoning)
    return rest if provider.startswith(_LEAVE_OUT) or "gemini" in model.lower() else 0


def _shares(
    total: int | None, audio: int | None, image: int | None, text: int | None
) -> tuple[int | None, int | None, int | None]:
    """Return the audio, image and text counts if they fit into the total.

    PostHog takes a text count, if there is one, for everything that is not audio or image; without
    one it computes the rest. Some providers count reasoning or cached tokens as none of the three.
    """
    other = (audio or 0) + (image or 0)
    if total is None or other > total:
        return (audio, image, text) if total is None else (None, None, None)
    return audio, image, text if text is None or other + text == total else None


def details(raw: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the first of `names` that is an object, else an empty one."""
    for name in names:
        if is_mapping(found := raw.get(name)):
            return found
    return {}


def count(raw: Mapping[str, Any], *names: str) -> int | None:
    """Return the first count among `names`, preferably one that is not 0.

    Anything else is treated as absent. Some gateways write counts as text.
    """
    zero = None
    for name in names if raw else ():
        value = raw.get(name)
        found = None if value is None else _count(value)
        if found:
            return found
        zero = found if zero is None else zero
    return zero


def _count(value: Any) -> int | None:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    found = number(value)
    return int(found) if found is not None and 0 <= found <= _MOST and found % 1 == 0 else None


def number(value: Any) -> float | None:
    """Return a number that fits a float; anything else is treated as absent."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return value if abs(value) <= sys.float_info.max else None


def seconds(value: Any) -> float | None:
    """Return a duration in seconds; some providers write it as text."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    found = number(value)
    return found if found is not None and found >= 0 else None


def _first(*counts: N | None) -> N | None:
    """Return the first count that is not 0; else 0 if any is 0, else `None`."""
    given = [found for found in counts if found is not None]
    return next(filter(None, given), given[0] if given else None)
