"""The caller's own prices, for models that PostHog's price book lacks or prices differently."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ._narrowing import is_mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of a model, in USD per million tokens unless stated otherwise.

    Raises `TypeError` or `ValueError` that names the field.
    """

    input: float
    """Input that was not read from a cache."""
    output: float = 0.0
    """Output, reasoning included."""
    cache_read: float | None = None
    """Input read from the cache; `None`: as `input`."""
    cache_write: float | None = None
    """Input written to the cache; `None`: as `input`."""
    cache_write_1h: float | None = None
    """The part of it that is kept for an hour (Anthropic); `None`: as `cache_write`."""
    audio_input: float | None = None
    """Audio input; `None`: as `input`."""
    audio_output: float | None = None
    """Audio output; `None`: as `output`."""
    image_input: float | None = None
    """Image input; `None`: as `input`."""
    image_output: float | None = None
    """Image output; `None`: as `output`."""
    request: float = 0.0
    """USD per call."""
    web_search: float = 0.0
    """USD per web search."""
    audio_minute: float = 0.0
    """USD per minute of audio, for calls billed by its length."""
    characters: float = 0.0
    """USD per million characters of text to speak, if no tokens are reported."""
    image: float = 0.0
    """USD per image made, for models that are billed by their number."""
    video_second: float = 0.0
    """USD per second of video made, if the request names its length."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise TypeError(f"{field.name} must be a number, not {type(value).__name__}")
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{field.name} must be a finite number of USD, not {value}")


def checked_prices(given: Any) -> Mapping[str, Price]:
    """Return a copy of a mapping from models to prices. Raises `TypeError` for anything else."""
    if given is None:
        return {}
    if not is_mapping(given):
        raise TypeError(
            "prices must be a mapping from models' names to posthog_llm.Price, "
            f"not {type(given).__name__}"
        )
    found: dict[Any, Any] = dict(given)
    for name, price in found.items():
        if not isinstance(name, str) or not isinstance(price, Price):
            raise TypeError(f"prices: {name!r} must be a model's name with a posthog_llm.Price")
    return found
