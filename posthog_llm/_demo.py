"""The main use case, end to end, on this machine alone: a model API, PostHog, and calls between.

Everything in between is real: the `openai` SDK through our client, HTTP, and the official `posthog`
client. Only the two ends are fakes from `posthog_llm.testing`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator
from typing import Any

import posthog
from pydantic import BaseModel

from . import openai
from .testing import PostHogReceiver, ScriptedProvider

CHAT_MODEL = "gpt-5-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class City(BaseModel):
    """The shape of the structured output."""

    name: str
    population: int


def run() -> list[dict[str, Any]]:
    """Make the calls against fakes on 127.0.0.1; return the events that arrived."""
    with _without_settings(), ScriptedProvider() as provider, PostHogReceiver() as receiver:
        destination = posthog.Posthog("phc_demo", host=receiver.url)
        client = openai.OpenAI(
            base_url=provider.base_url, api_key="demo", posthog_client=destination
        )
        sent = make_calls(client)
        destination.shutdown()
        return receiver.wait_for(sent)


@contextlib.contextmanager
def _without_settings() -> Generator[None, None, None]:
    """Hide the environment's settings: they are for real services, and the demo uses none."""
    hidden = {name: os.environ[name] for name in os.environ if _is_setting(name.upper())}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _is_setting(name: str) -> bool:
    return name.startswith(("POSTHOG_", "OPENAI_", "SSL_CERT_")) or name.endswith("_PROXY")


def run_live() -> int:
    """Make the calls against OpenAI and PostHog; return the number of events sent.

    Reads `OPENAI_API_KEY`, `POSTHOG_API_KEY` and `POSTHOG_HOST`.
    """
    host = os.environ.get("POSTHOG_HOST")
    destination = posthog.Posthog(os.environ["POSTHOG_API_KEY"], host=host)
    sent = make_calls(openai.OpenAI(posthog_client=destination))
    destination.shutdown()
    return sent


def make_calls(client: openai.OpenAI) -> int:
    """Make one call of each kind; return the number of events they cause."""
    calls = list(_calls(client.with_options(posthog_distinct_id="demo-user")))
    return len(calls)


def _calls(client: Any) -> Iterator[str]:
    def ask(text: str, **more: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return client.chat.completions.create(model=CHAT_MODEL, messages=messages, **more)

    ask("What is PostHog?", posthog_span_name="chat")
    yield "chat"
    for _ in ask("Tell me a story", stream=True, posthog_span_name="streamed chat"):
        time.sleep(0.002)  # as if a person were reading along
    yield "streamed chat"
    ask("Weather in Lisbon?", tools=[WEATHER], posthog_span_name="tools")
    yield "tools"
    client.chat.completions.parse(
        model=CHAT_MODEL,
        messages=[{"role": "user", "content": "Lisbon"}],
        response_format=City,
        posthog_span_name="structured output",
    )
    yield "structured output"
    client.responses.create(model=CHAT_MODEL, input="Hello", posthog_span_name="response")
    yield "response"
    client.embeddings.create(
        model=EMBEDDING_MODEL, input=["one", "two"], posthog_span_name="embeddings"
    )
    yield "embeddings"
    with contextlib.suppress(openai.NotFoundError):
        client.chat.completions.create(
            model="no-such-model",
            messages=[{"role": "user", "content": "Anyone?"}],
            posthog_span_name="an error",
        )
    yield "an error"
    ask("My diagnosis is…", posthog_privacy_mode=True, posthog_span_name="private call")
    yield "private call"
