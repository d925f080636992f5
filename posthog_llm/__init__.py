"""Every call to a model becomes one true PostHog event.

    from posthog_llm.openai import OpenAI

See `posthog_llm.openai` for the clients, `context` for identities that hold for a block,
`event_id` for linking feedback to a call, `flush` for short-lived processes, `configure` for
what holds for the whole process, and `stats` for what became of the events.
"""

from __future__ import annotations

from .context import bind, context
from .delivery.destinations import Project
from .delivery.lifecycle import aflush, flush, install_signal_flush, shutdown, stats
from .delivery.stats import Stats
from .event import VERSION as __version__
from .feedback import capture_feedback, capture_metric
from .instrumentation import instrument, uninstrument
from .jobs import Delivery, job
from .manual import capture_embedding, capture_generation, generation
from .observe.event_ids import event_id
from .prices import Price
from .propagation import continue_trace, headers
from .settings import Spool, configure
from .tracing import span, trace
from .web import ASGIMiddleware, WSGIMiddleware

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
    "bind",
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
    "headers",
    "install_signal_flush",
    "instrument",
    "job",
    "shutdown",
    "span",
    "stats",
    "trace",
    "uninstrument",
]
