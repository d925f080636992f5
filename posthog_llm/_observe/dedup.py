"""Layers above and below one model call: only the outermost captures it.

A layer above in the same process is found on the call stack, which no other task shares.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from .._imports import imported
from .._settings import settings

HEADER = "x-posthog-llm-span-id"
"""Sent to the gateways in `configure(gateways=...)`: a callback that sees it captures nothing."""
_DEPTH = 100
_PASSED = frozenset(
    {"posthog_llm", "openai", "anthropic", "litellm", "langchain", "functools", "contextlib"}
    | {"asyncio", "concurrent"}
)
"""Packages allowed on the stack between a call and the layer that makes it: if another comes
between, such as a user's hook in LiteLLM, the call is not that layer's."""
_POSTHOG_CALLBACK = "litellm.integrations.posthog"
# https://posthog.com/docs/ai-observability: the gateway captures each call itself, and PostHog
# drops what a client captures of it.
_CAPTURING_HOSTS = frozenset(
    {"gateway.posthog.com", "gateway.us.posthog.com", "gateway.eu.posthog.com"}
    | {"ai-gateway.us.posthog.com", "ai-gateway.eu.posthog.com"}
)


def is_captured_upstream(base_url: str | None) -> bool:
    """Whether the service at a URL captures each call itself."""
    try:
        return base_url is not None and urlsplit(base_url).hostname in _CAPTURING_HOSTS
    except ValueError:  # not a URL
        return False


def is_named_gateway(host: str | None) -> bool:
    """Whether the user configured `host` as a gateway that runs our callback."""
    return host in settings().gateways


def is_captured_above(*, within_litellm: bool = True) -> bool:
    """Whether LiteLLM with a PostHog callback, or LangChain with one, makes this call."""
    litellm = imported("litellm") if within_litellm else None
    by_litellm = litellm is not None and _has_callback(litellm)
    by_langchain = _langchain_handler()
    if not by_litellm and by_langchain is None:
        return False
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - as in the standard library
    for _ in range(_DEPTH):
        package = _package(frame)
        if frame is None or package not in _PASSED:
            return False
        if by_litellm and package == "litellm":
            return True
        if by_langchain and _runs(frame, by_langchain):
            return True
        frame = frame.f_back
    return False


def _package(frame: FrameType | None) -> str:
    module = (frame.f_globals.get("__name__") if frame is not None else None) or ""
    package: str = module.partition(".")[0]
    return "langchain" if package.startswith("langchain") else package


def _has_callback(litellm: Any) -> bool:
    """Whether LiteLLM captures to PostHog: with our callback, or with its own."""
    names = ("callbacks", "success_callback", "_async_success_callback")
    callbacks = [c for name in names for c in getattr(litellm, name, None) or ()]
    ours = getattr(imported("posthog_llm.litellm"), "PostHogLogger", ())
    return any(
        isinstance(c, ours) or c == "posthog" or type(c).__module__ == _POSTHOG_CALLBACK
        for c in callbacks
    )


def _langchain_handler() -> Any:
    module = imported("posthog.ai.langchain.callbacks")
    return getattr(module, "CallbackHandler", None)


def _runs(frame: FrameType, handler: Any) -> bool:
    """Whether LangChain's run at this frame reports to PostHog's handler."""
    manager = frame.f_locals.get("run_manager")
    handlers = getattr(manager, "handlers", None) or ()
    return any(isinstance(one, handler) for one in handlers)
