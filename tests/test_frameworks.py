"""Frameworks that call models: one event a call, who asks from our context, streams unchanged.

The rows of docs/frameworks.md, with the real packages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from posthog_llm import context, instrument, uninstrument
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

for package in ("pydantic_ai", "agents", "langchain_anthropic", "llama_index", "dspy"):
    pytest.importorskip(package, reason="the frameworks have a nox session")

import posthog_llm.anthropic  # noqa: E402 - after the frameworks were found
import posthog_llm.openai  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Setting:
    """A provider, and clients for it: ours, or none under `instrument`."""

    def __init__(self, provider: ScriptedProvider, sink: MemorySink, ours: bool) -> None:
        self.provider, self.sink, self.ours = provider, sink, ours
        if not ours:
            instrument(sink)

    def openai(self, prefix: str = "Async") -> Any:
        return self._client("OpenAI", prefix, self.provider.base_url)

    def anthropic(self, prefix: str = "Async") -> Any:
        return self._client("Anthropic", prefix, self.provider.url)

    def _client(self, name: str, prefix: str, base_url: str) -> Any:
        import anthropic
        import openai

        place: Any = {"base_url": base_url, "api_key": "k", "max_retries": 0}
        if self.ours:
            module: Any = getattr(posthog_llm, name.lower())
            return getattr(module, prefix + name)(**place, posthog_client=self.sink)
        return getattr({"OpenAI": openai, "Anthropic": anthropic}[name], prefix + name)(**place)


@pytest.fixture(params=[True, False], ids=["our client", "instrument"])
def setting(
    request: pytest.FixtureRequest, provider: ScriptedProvider, sink: MemorySink
) -> Iterator[Setting]:
    yield Setting(provider, sink, request.param)
    uninstrument()


Run = Callable[[Setting], Any]
RUNS: dict[str, Run] = {}


def framework(run: Run) -> Run:
    RUNS[run.__name__] = run
    return run


# -- pydantic-ai -----------------------------------------------------------------------


def _pydantic_agent(setting: Setting, vendor: str) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    if vendor == "anthropic":
        provider = AnthropicProvider(anthropic_client=setting.anthropic())
        return Agent(AnthropicModel("claude-sonnet-4-5", provider=provider))
    model = OpenAIChatModel if vendor == "chat" else OpenAIResponsesModel
    return Agent(model("gpt-4o", provider=OpenAIProvider(openai_client=setting.openai())))


@framework
def pydantic_ai_chat(setting: Setting) -> str:
    return asyncio.run(_pydantic_agent(setting, "chat").run("hi")).output


@framework
def pydantic_ai_responses(setting: Setting) -> str:
    return asyncio.run(_pydantic_agent(setting, "responses").run("hi")).output


@framework
def pydantic_ai_anthropic(setting: Setting) -> str:
    return asyncio.run(_pydantic_agent(setting, "anthropic").run("hi")).output


@framework
def pydantic_ai_stream(setting: Setting) -> str:
    async def main() -> str:
        async with _pydantic_agent(setting, "chat").run_stream("hi") as result:
            pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        assert len(pieces) > 1
        return "".join(pieces)

    return asyncio.run(main())


# -- OpenAI Agents SDK -----------------------------------------------------------------


def _agent(setting: Setting, chat: bool) -> Any:
    import agents

    agents.set_tracing_disabled(True)
    kind = agents.OpenAIChatCompletionsModel if chat else agents.OpenAIResponsesModel
    return agents.Agent("helper", model=kind("gpt-4o", openai_client=setting.openai()))


@framework
def agents_responses(setting: Setting) -> str:
    import agents

    return asyncio.run(agents.Runner.run(_agent(setting, False), "hi")).final_output


@framework
def agents_chat(setting: Setting) -> str:
    import agents

    return asyncio.run(agents.Runner.run(_agent(setting, True), "hi")).final_output


def _streamed(setting: Setting, chat: bool) -> str:
    import agents

    async def main() -> str:
        result = agents.Runner.run_streamed(_agent(setting, chat), "hi")
        assert len([event async for event in result.stream_events()]) > 3
        return result.final_output

    return asyncio.run(main())


@framework
def agents_responses_streamed(setting: Setting) -> str:
    return _streamed(setting, False)


@framework
def agents_chat_streamed(setting: Setting) -> str:
    return _streamed(setting, True)


# -- LangChain -------------------------------------------------------------------------


def _chat_openai(setting: Setting) -> Any:
    from langchain_openai import ChatOpenAI

    if not setting.ours:
        return ChatOpenAI(model="gpt-4o", base_url=setting.provider.base_url, api_key="k")
    return ChatOpenAI(
        model="gpt-4o",
        api_key="k",
        client=setting.openai("").chat.completions,
        async_client=setting.openai().chat.completions,
    )


def _chat_anthropic(setting: Setting) -> Any:
    from langchain_anthropic import ChatAnthropic

    place: Any = {"base_url": setting.provider.url, "api_key": "k", "max_retries": 0}
    model = ChatAnthropic(model="claude-sonnet-4-5", max_tokens=100, **place)
    if setting.ours:
        # The attributes in which it keeps the clients that it makes.
        model.__dict__["_client"] = setting.anthropic("")
        model.__dict__["_async_client"] = setting.anthropic()
    return model


def _read(pieces: list[Any]) -> str:
    assert len(pieces) > 1
    return "".join(str(piece.text) for piece in pieces)


@framework
def langchain_openai(setting: Setting) -> str:
    return str(_chat_openai(setting).invoke("hi").text)


@framework
def langchain_openai_async(setting: Setting) -> str:
    return str(asyncio.run(_chat_openai(setting).ainvoke("hi")).text)


@framework
def langchain_openai_stream(setting: Setting) -> str:
    return _read(list(_chat_openai(setting).stream("hi")))


@framework
def langchain_anthropic(setting: Setting) -> str:
    return str(_chat_anthropic(setting).invoke("hi").text)


@framework
def langchain_anthropic_stream(setting: Setting) -> str:
    async def main() -> str:
        return _read([piece async for piece in _chat_anthropic(setting).astream("hi")])

    return asyncio.run(main())


# -- instructor, LlamaIndex ------------------------------------------------------------


@framework
def instructor_openai(setting: Setting) -> str:
    import instructor
    from pydantic import BaseModel

    class Said(BaseModel):
        text: str

    call = {"name": "Said", "arguments": '{"text": "You said: hi"}'}
    message = {"role": "assistant", "content": None}
    tools = [{"id": "call_1", "type": "function", "function": call}]
    choice = {"index": 0, "message": {**message, "tool_calls": tools}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o"}
    answer = Reply.json({**body, "choices": [choice], "usage": usage})
    setting.provider.script("/chat/completions", answer)
    client = instructor.from_openai(setting.openai(""))
    asked: Any = [{"role": "user", "content": "hi"}]
    found: Said = client.chat.completions.create(
        model="gpt-4o", messages=asked, response_model=Said
    )
    return found.text


def _llama(setting: Setting) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(
        model="gpt-4o",
        openai_client=setting.openai(""),
        async_openai_client=setting.openai(),
        api_key="k",
    )


@framework
def llama_index(setting: Setting) -> str:
    return str(_llama(setting).complete("hi").text)


@framework
def llama_index_stream(setting: Setting) -> str:
    async def main() -> str:
        pieces = [piece async for piece in await _llama(setting).astream_complete("hi")]
        assert len(pieces) > 1
        return str(pieces[-1].text)

    return asyncio.run(main())


@pytest.mark.parametrize("name", list(RUNS))
def test_one_event_a_call(setting: Setting, name: str) -> None:
    with context(distinct_id="user-7", session_id="chat-1", properties={"plan": "gold"}):
        said = RUNS[name](setting)
    assert said == "You said: hi"
    (event,) = setting.sink.wait_for(1)
    assert len(setting.provider.requests) == 1
    recorded = event.properties
    assert event.distinct_id == "user-7"
    assert (recorded["$ai_session_id"], recorded["plan"]) == ("chat-1", "gold")
    assert recorded["$ai_model"] in ("gpt-4o", "claude-sonnet-4-5")
    assert (recorded["$ai_input_tokens"], recorded["$ai_output_tokens"]) == (9, 3)
    assert "$ai_is_error" not in recorded
    assert "hi" in str(recorded["$ai_input"])
    assert "stream" not in name or recorded["$ai_stream"] is True


# -- LiteLLM and DSPy, which calls LiteLLM ---------------------------------------------


@pytest.mark.parametrize("through", ["callback", "instrument", "both"])
@pytest.mark.parametrize("name", ["litellm", "dspy"])
def test_litellm(provider: ScriptedProvider, sink: MemorySink, through: str, name: str) -> None:
    import dspy
    import litellm

    from posthog_llm.litellm import PostHogLogger

    if through != "callback":
        instrument(sink)
    if through != "instrument":
        litellm.callbacks = [PostHogLogger(posthog_client=sink)]
    place: Any = {"api_base": provider.base_url, "api_key": "k"}
    try:
        with context(distinct_id="user-7"):
            if name == "dspy":
                lm = dspy.LM("openai/gpt-4o", engine="litellm", cache=False, **place)
                assert lm("hi") == ["You said: hi"]
            else:
                asked = [{"role": "user", "content": "hi"}]
                litellm.completion("openai/gpt-4o", asked, **place)
        until = time.monotonic() + 10
        while not sink.events and time.monotonic() < until:
            time.sleep(0.02)  # LiteLLM calls back in threads of its own
    finally:
        uninstrument()
        for names in ("callbacks", "input_callback", "success_callback", "failure_callback"):
            setattr(litellm, names, [])
        litellm._async_success_callback, litellm._async_failure_callback = [], []
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "user-7"
    assert event.properties["$ai_input_tokens"] == 9
