"""The cost of a call at the caller's own prices.

PostHog's own rules for such prices ignore cache lifetimes, audio and images, and count cache writes
only for Claude. So the cost is computed here and passed through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .._exchange import Outcome
from .._prices import Price
from .._providers.usage import adds_reasoning, cached_tokens, seconds
from .._record import Record, Usage

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Cost:
    """USD."""

    input: float
    output: float
    other: float
    """What is charged in addition to tokens."""


def cost_of(
    record: Record, usage: Usage, model: str | None, prices: Mapping[str, Price]
) -> Cost | None:
    """Return a call's cost at `prices`; `None` if the price or the counts are unknown.

    `usage` has the counts as PostHog uses them under the name `model`.
    """
    price = _price_of(record, model, prices) if prices else None
    if price is None or _is_reported(record):
        return None
    other = _beside_tokens(record, usage, price)
    into, out = _input(usage, price, model or ""), _output(usage, price, model or "")
    by_length = usage.audio_seconds or billed_characters(record) or usage.images or usage.videos
    if into is None and (not other or (not by_length and (price.input or price.output))):
        return None
    # If the response broke off, only the input is known; PostHog does not count more, either.
    return Cost(into or 0.0, out or 0.0, other)


def _price_of(record: Record, model: str | None, prices: Mapping[str, Price]) -> Price | None:
    """Return the price of the model; a batch price is listed under its own name."""
    requested, served = record.request.model, record.response.model
    names = [requested, record.request.full_name, record.model, model, served]
    if fallback := record.response.fallback:
        names = [fallback, record.model, model, served]
    if record.response.fell_back:
        names = [served, model]
    if record.exchange.batch is not None:
        names = [f"{requested}:batch", model, f"{served}:batch"]
    return next((prices[name] for name in names if name and name in prices), None)


def _is_reported(record: Record) -> bool:
    """Whether the cost was given in a manual capture, or no model ran."""
    usage = record.response.usage
    return usage.raw is None and usage.cost_usd is not None and not record.response.is_local


def _input(usage: Usage, price: Price, model: str) -> float | None:
    if usage.input_tokens is None:
        return None
    read, hour = usage.cache_read_tokens or 0, usage.cache_write_1h_tokens or 0
    written = cached_tokens(usage) - read - hour
    inside = 0 if _is_apart(usage, model) else read + written + hour
    audio = max(0, (usage.audio_input_tokens or 0) - (usage.cached_audio_tokens or 0))
    image = max(0, (usage.image_input_tokens or 0) - (usage.cached_image_tokens or 0))
    # Cached tokens of an unknown kind must not be counted again as audio or images.
    image = min(image, max(0, usage.input_tokens - inside))
    audio = min(audio, max(0, usage.input_tokens - inside - image))
    plain = max(0, usage.input_tokens - inside - audio - image)
    write = _or(price.cache_write, price.input)
    return (
        plain * price.input
        + read * _or(price.cache_read, price.input)
        + written * write
        + hour * _or(price.cache_write_1h, write)
        + audio * _or(price.audio_input, price.input)
        + image * _or(price.image_input, price.input)
    ) / _MILLION


def _is_apart(usage: Usage, model: str) -> bool:
    """Whether the input excludes cached tokens; if unknown, by model name, as in PostHog."""
    if usage.cache_tokens_excluded is None:
        return "anthropic" in model.lower() or model.lower().startswith("claude")
    return usage.cache_tokens_excluded


def _output(usage: Usage, price: Price, model: str) -> float | None:
    if usage.output_tokens is None:
        return None
    audio, image = usage.audio_output_tokens or 0, usage.image_output_tokens or 0
    beside = usage.reasoning_tokens or 0 if adds_reasoning(model) else 0
    plain = max(0, usage.output_tokens - audio - image) + beside
    return (
        plain * price.output
        + audio * _or(price.audio_output, price.output)
        + image * _or(price.image_output, price.output)
    ) / _MILLION


def billed_characters(record: Record) -> int | None:
    """Return the billed characters of a speech request, if no tokens were reported."""
    nothing_ran = record.outcome is Outcome.ERROR or record.response.usage.cost_usd == 0
    return None if record.response.usage.raw or nothing_ran else record.request.characters


def video_seconds(record: Record) -> float | None:
    """Return the length of all videos made, if the request said how long each is to be."""
    each, made = record.request.parameters.get("duration_seconds"), record.response.usage.videos
    found = seconds(each)
    return None if found is None or made is None else found * made


def _beside_tokens(record: Record, usage: Usage, price: Price) -> float:
    """Return the cost other than tokens; a failed call is assumed to have run no model."""
    if record.outcome is not Outcome.OK and usage.input_tokens is None:
        return 0.0
    return (
        price.request
        + (usage.web_searches or 0) * price.web_search
        + (usage.audio_seconds or 0) / 60 * price.audio_minute
        + (billed_characters(record) or 0) * price.characters / _MILLION
        + (usage.images or 0) * price.image
        + (video_seconds(record) or 0) * price.video_second
        + (usage.request_cost_usd or 0)
    )


def _or(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price
