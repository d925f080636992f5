"""Frameworks that call Gemini through Google's SDK: `instrument` sees each of their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from posthog_llm import instrument, uninstrument
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from ..driving import saying

for package in ("google.adk", "langchain_google_genai", "llama_index.llms.google_genai"):
    pytest.importorskip(package, reason="the frameworks have a nox session")
from google.adk.agents import Agent  # noqa: E402
from google.adk.runners import InMemoryRunner  # noqa: E402
from google.genai import types  # noqa: E402
from langchain_google_genai import ChatGoogleGenerativeAI  # noqa: E402
from llama_index.llms.google_genai import GoogleGenAI  # noqa: E402

MODEL = "gemini-2.5-flash"
SAID = saying("You said: hi")
pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks' own


@pytest.fixture(autouse=True)
def watched(
    provider: ScriptedProvider, sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.setenv("GOOGLE_API_KEY", "test-key-123")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", provider.url)
    instrument(sink)
    yield
    uninstrument()


def check(sink: MemorySink, *streamed: bool) -> None:
    """Check the events of calls that say the same."""
    events = sink.wait_for(len(streamed))
    for event, stream in zip(events, streamed, strict=True):
        assert event.event == "$ai_generation"
        assert event.properties["$ai_model"] == MODEL
        assert event.properties["$ai_stream"] is stream
        assert event.properties["$ai_output_choices"] == SAID
        assert event.properties["$ai_output_tokens"] == 3


def test_langchain(provider: ScriptedProvider, sink: MemorySink) -> None:
    model = ChatGoogleGenerativeAI(model=MODEL, base_url=provider.url)

    async def ask() -> None:
        await model.ainvoke("hi")
        assert [chunk async for chunk in model.astream("hi")]

    model.invoke("hi")
    assert list(model.stream("hi"))
    asyncio.run(ask())
    check(sink, False, True, False, True)


def test_llama_index(provider: ScriptedProvider, sink: MemorySink) -> None:
    options = types.HttpOptions(base_url=provider.url)
    model = GoogleGenAI(model=MODEL, http_options=options, max_tokens=100, context_window=1000)

    async def ask() -> None:
        await model.acomplete("hi")
        assert [chunk async for chunk in await model.astream_complete("hi")]

    model.complete("hi")
    assert list(model.stream_complete("hi"))
    asyncio.run(ask())
    check(sink, False, True, False, True)


def get_weather(city: str) -> dict[str, Any]:
    """Return the weather of a city."""
    return {"city": city, "degrees": 23}


get_weather.__annotations__ = {"city": str, "return": dict}  # it cannot read texts


def test_adk(provider: ScriptedProvider, sink: MemorySink) -> None:
    path = f"/models/{MODEL}:generateContent"
    provider.script(path, Reply.tool_call("get_weather", {"city": "Lisbon"}))
    provider.script(path, Reply.text("It is 23 degrees."))
    agent = Agent(name="weather", model=MODEL, instruction="Be brief.", tools=[get_weather])

    async def run() -> None:
        runner = InMemoryRunner(agent=agent, app_name="app")
        session = await runner.session_service.create_session(app_name="app", user_id="u")
        message = types.Content(role="user", parts=[types.Part(text="weather?")])
        async for _ in runner.run_async(user_id="u", session_id=session.id, new_message=message):
            pass

    asyncio.run(run())
    call, answer = sink.wait_for(2)
    (block,) = call.properties["$ai_output_choices"][0]["content"]
    assert block["function"] == {"name": "get_weather", "arguments": {"city": "Lisbon"}}
    result = answer.properties["$ai_input"][-1]["content"][0]
    assert (result["type"], result["tool_name"]) == ("tool_result", "get_weather")
    assert result["content"] == {"city": "Lisbon", "degrees": 23}
    assert answer.properties["$ai_output_choices"] == saying("It is 23 degrees.")
