"""Every call to a model becomes one true PostHog event.

    from posthog_llm.openai import OpenAI

See `posthog_llm.openai` for the clients, `context` for identities that hold for a block,
`event_id` for linking feedback to a call, `flush` for short-lived processes, `configure` for
what holds for the whole process, and `stats` for what became of the events.
"""

from __future__ import annotations

from .context import context
from .delivery.lifecycle import flush, install_signal_flush, shutdown, stats
from .delivery.project import Project
from .delivery.stats import Stats
from .event import VERSION as __version__
from .observe.event_ids import event_id
from .settings import Spool, configure

__all__ = [
    "Project",
    "Spool",
    "Stats",
    "__version__",
    "configure",
    "context",
    "event_id",
    "flush",
    "install_signal_flush",
    "shutdown",
    "stats",
]
