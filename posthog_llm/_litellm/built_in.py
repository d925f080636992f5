"""LiteLLM's own PostHog callback, which stays silent beside ours."""

from __future__ import annotations

from typing import Any

from .._faults import guarded


@guarded
def silence() -> None:
    """Let the name `posthog` stand for a callback that says nothing, from here on.

    A team's or a key's callback settings name LiteLLM's own; our callback tells those calls,
    too, and to the project that the settings name.
    """
    from litellm.integrations.posthog import PostHogLogger as BuiltIn
    from litellm.litellm_core_utils import litellm_logging

    class Silent(BuiltIn):  # type: ignore[misc]
        def __init__(self) -> None:
            self.message_logging, self.turn_off_message_logging = True, False

        def log_success_event(self, *args: Any, **kwargs: Any) -> None:
            """Say nothing."""

        async def async_log_success_event(self, *args: Any, **kwargs: Any) -> None:
            """Say nothing."""

        async def async_log_failure_event(self, *args: Any, **kwargs: Any) -> None:
            """Say nothing."""

        async def flush_queue(self, *args: Any, **kwargs: Any) -> None:
            """There is nothing to send."""

    known: Any = litellm_logging._in_memory_loggers
    if not any(type(one).__name__ == "Silent" for one in known):
        known.insert(0, Silent())
