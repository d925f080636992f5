"""Every call to a model becomes exactly one accurate PostHog event.

    from posthog_llm.openai import OpenAI

See `posthog_llm.openai` for the clients, `context` for the identity in a block of code, `event_id`
for linking feedback to a call, `flush` for short-lived processes, `configure` for process-wide
settings, and `stats` for what became of the events.
"""

from __future__ import annotations

from ._context import context, propagate_context
from ._delivery.destinations import Project
from ._delivery.lifecycle import aflush, flush, install_signal_flush, shutdown, stats
from ._delivery.stats import Stats
from ._event import VERSION as __version__
from ._feedback import capture_feedback, capture_metric
from ._instrumentation import instrument, uninstrument
from ._jobs import Delivery, job
from ._manual import capture_embedding, capture_generation, generation
from ._observe.event_ids import event_id
from ._prices import Price
from ._propagation import continue_trace, trace_headers
from ._settings import Spool, configure
from ._tracing import span, trace
from ._web import ASGIMiddleware, WSGIMiddleware

__all__ = [
    "ASGIMiddleware",
    "Delivery",
    "Price",
    "Project",
    "Spool",
    "Stats",
    "WSGIMiddleware",
    "__version__",
    "aflush",
    "capture_embedding",
    "capture_feedback",
    "capture_generation",
    "capture_metric",
    "configure",
    "context",
    "continue_trace",
    "event_id",
    "flush",
    "generation",
    "install_signal_flush",
    "instrument",
    "job",
    "propagate_context",
    "shutdown",
    "span",
    "stats",
    "trace",
    "trace_headers",
    "uninstrument",
]
