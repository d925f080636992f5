"""The cost that a service reports, wherever it reports it; passed through unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._narrowing import is_list, is_mapping
from .._record import Usage
from .gateways import ROWS

_MOST_USD = 1e9
"""No call costs this much."""
_IN_USAGE = [(row.cost[1:], row.per_dollar) for row in ROWS if row.cost[:1] == ("usage",)]
_REPORTING = {row.provider for row in ROWS if row.cost[:1] == ("usage",)}
_IN_HEADERS = [name[1:] for row in ROWS for name in row.cost if name[0] == "<"]
_CACHES = [row.cached for row in ROWS if row.cached]
_ELSEWHERE = [
    *(r.cost for r in ROWS if r.cost and r.cost[0][0] != "<" and r.cost[0] != "usage"),
    *(path for row in ROWS for path in row.also_cost),
]


def note(usage: Usage, body: Mapping[str, Any], headers: Any) -> None:
    """Set the cost that a response reports, unless it was already read from the usage.

    Outside the usage, a zero means that the gateway does not know the price, or not yet.
    """
    if usage.cost_usd is None:
        usage.cost_usd = of_usage(body.get("usage"))
    if not usage.cost_usd:
        texts = [headers.get(name) for name in _IN_HEADERS] if headers is not None else []
        found = map(_usd, [*(_at(body, p) for p in _ELSEWHERE), *texts])
        usage.cost_usd = next(filter(None, found), usage.cost_usd)


def is_cached(headers: Any) -> bool:
    """Whether a gateway answered from its own cache, which is free of charge."""
    return headers is not None and any(
        all(pattern.fullmatch(str(headers.get(name) or "")) for name, pattern in cache)
        for cache in _CACHES
    )


def of_usage(raw: Any) -> float | None:
    """Return the total cost in USD from a usage object."""
    if not is_mapping(raw):
        return None
    costs = (_usd(_at(raw, path), unit) for path, unit in _IN_USAGE)
    totals = [cost for cost in costs if cost is not None]
    # Next to another value, a zero is an empty field.
    total = next(filter(None, totals), totals[0] if totals else None)
    if total is None or str(raw.get("is_byok")).lower() not in ("true", "1"):
        return total
    upstream = _upstream(raw)
    return None if upstream is None else total + upstream


def _upstream(raw: Mapping[str, Any]) -> float | None:
    """Return what the key's owner pays the provider; `None` means the total is only a fee."""
    whole = _usd(_at(raw, ("cost_details", "upstream_inference_cost")))
    if whole is not None:
        return whole
    names = ("upstream_inference_prompt_cost", "upstream_inference_completions_cost")
    into, out = (_usd(_at(raw, ("cost_details", name))) for name in names)
    return None if into is None or out is None else into + out


def doubt_zero(usage: Usage, provider: str) -> None:
    """Drop a reported zero, unless the provider is known to report costs.

    With any other provider, the field is simply not filled in.
    """
    if usage.cost_usd == 0 and provider not in _REPORTING:
        usage.cost_usd = None


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """Follow a path; in a list, take the first item."""
    for name in path:
        if is_list(value):
            value = value[0] if value else None
        value = value.get(name) if is_mapping(value) else None
        if value is None:
            return None
    return value[0] if is_list(value) and value else value


def _usd(value: Any, per_dollar: float = 1) -> float | None:
    """Return an amount in USD from one reported in units of 1/`per_dollar` USD."""
    if isinstance(value, str):
        try:
            value = float("" if "_" in value else value)  # Python allows underscores in numbers
        except ValueError:
            return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value / per_dollar if 0 <= value <= _MOST_USD * per_dollar else None
    return None
