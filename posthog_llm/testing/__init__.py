"""Fakes at the wire level, for testing code that uses `posthog_llm`: no network, no mocks.

`ScriptedProvider` behaves like an OpenAI-compatible API, and `PostHogReceiver` accepts events like
PostHog; both use real HTTP on 127.0.0.1. `MemorySink` replaces a `posthog` client if HTTP does not
matter. `reset` ends a test, so that the next one starts like a new process.

    with ScriptedProvider() as provider:
        sink = MemorySink()
        client = OpenAI(base_url=provider.base_url, api_key="test", posthog_client=sink)
        client.chat.completions.create(model="gpt-5-mini", messages=[...])
        (event,) = sink.wait_for(1)
        assert event.properties["$ai_model"] == "gpt-5-mini"
"""

from ._provider import Received, Reply, ScriptedProvider
from ._receiver import PostHogReceiver
from ._resetting import reset
from ._sink import CapturedEvent, MemorySink

__all__ = [
    "CapturedEvent",
    "MemorySink",
    "PostHogReceiver",
    "Received",
    "Reply",
    "ScriptedProvider",
    "reset",
]
