"""Silences LiteLLM's own PostHog callback while ours is used."""

from __future__ import annotations

from typing import Any

from .._faults import guarded


@guarded
def silence() -> None:
    """From now on, make the name `posthog` stand for a callback that does nothing.

    Callback settings of a team or a key name LiteLLM's own callback. Ours captures those calls,
    too, for the project that the settings name.
    """
    from litellm.integrations.posthog import PostHogLogger as BuiltIn
    from litellm.litellm_core_utils import litellm_logging

    class Silent(BuiltIn):  # type: ignore[misc]
        def __init__(self) -> None:
            self.message_logging, self.turn_off_message_logging = True, False

        def log_success_event(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing."""

        async def async_log_success_event(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing."""

        async def async_log_failure_event(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing."""

        async def flush_queue(self, *args: Any, **kwargs: Any) -> None:
            """Do nothing: there is nothing to send."""

    known: Any = litellm_logging._in_memory_loggers
    if not any(type(one).__name__ == "Silent" for one in known):
        known.insert(0, Silent())
