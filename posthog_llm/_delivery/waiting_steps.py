"""Steps of traces that wait for a destination: what a flush makes of them, and the counts."""

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
    """Put on the call queue what waits and may go; False: some of it waits on.

    It goes where it would go if its trace ended now. `client`: only where that is this client.
    """
    has_default = _has_default() if client is None else official_client(_nearest()) is client
    waiting.abandon(default_for_steps(), has_default=has_default)
    return client is not None or not waiting.held()


def _has_default() -> bool:
    return is_mock() or bool(environment().api_key) or _nearest() is not None


def _nearest() -> Any:
    """Return the client of the program's that stands for what names none; `None`: none does."""
    module = imported("posthog")
    of_module = None if environment().api_key or not is_configured(module) else module
    return first_given(default_for_steps(), of_module)


def held() -> list[Any]:
    """Return the steps that wait."""
    return waiting.held()


def counted(stats: Stats) -> Stats:
    """Return the counts with what waits."""
    steps = held()
    if not steps:
        return stats
    longest = time.time() - min(exchange.started_at + exchange.ended for exchange in steps)
    return replace(
        stats,
        queue_bytes=stats.queue_bytes + sum(exchange.weight() for exchange in steps),
        oldest_age=max(longest, stats.oldest_age or 0.0),
    )
