"""Fakes at the wire, for tests of code that uses `posthog_llm`: no network, no mocks.

`ScriptedProvider` answers like an OpenAI-compatible API, `PostHogReceiver` takes events like
PostHog, both over real HTTP on 127.0.0.1. `MemorySink` takes the place of a `posthog` client
where HTTP does not matter. `reset` ends a test: the next one begins as a new process does.

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
