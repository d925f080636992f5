"""Steps of traces that wait for a destination: flushing and counting them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from .._imports import imported
from .._narrowing import first_given
from .._roots import waiting
from .._settings import default_for_steps
from .destinations import environment, is_configured, is_mock, official_client
from .stats import Stats


def release(client: Any = None) -> bool:
    """Put waiting steps on the call queue; return `False` if some must keep waiting.

    They go where they would go if their trace ended now. `client`: steps for the default client
    are released only if that is this client.
    """
    has_default = _has_default() if client is None else official_client(_nearest()) is client
    waiting.abandon(default_for_steps(), has_default=has_default)
    return client is not None or not waiting.held()


def _has_default() -> bool:
    return is_mock() or bool(environment().api_key) or _nearest() is not None


def _nearest() -> Any:
    """Return the application's default client; `None` if there is none."""
    module = imported("posthog")
    of_module = None if environment().api_key or not is_configured(module) else module
    return first_given(default_for_steps(), of_module)


def held() -> list[Any]:
    """Return the waiting steps."""
    return waiting.held()


def counted(stats: Stats) -> Stats:
    """Return the counts with the waiting steps added."""
    steps = held()
    if not steps:
        return stats
    longest = time.time() - min(exchange.started_at + exchange.ended for exchange in steps)
    return replace(
        stats,
        queue_bytes=stats.queue_bytes + sum(exchange.weight() for exchange in steps),
        oldest_age=max(longest, stats.oldest_age or 0.0),
    )
