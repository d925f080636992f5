"""Every call to a model becomes one true PostHog event.

    from posthog_llm.openai import OpenAI

See `posthog_llm.openai` for the clients, `context` for identities that hold for a block,
`event_id` for linking feedback to a call, and `flush` for short-lived processes.
"""

from __future__ import annotations

from .context import context
from .delivery.worker import flush
from .event import VERSION as __version__
from .observe.event_ids import event_id

__all__ = ["__version__", "context", "event_id", "flush"]
