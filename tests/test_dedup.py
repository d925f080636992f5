"""One model call is one generation, whatever layers tell of it. Rows of docs/gateways.md."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

import posthog_llm
from posthog_llm._observe import dedup
from posthog_llm.testing import MemorySink, ScriptedProvider

from .driving import Driver

ASK: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def test_gateway_header_goes_to_named_hosts_only(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = drive.ours(posthog_client=sink)
    posthog_llm.configure(gateways=["Gateway.Internal", "127.0.0.1"])
    try:
        drive.call(lambda: client.chat.completions.create(**ASK))
        posthog_llm.configure(gateways=["gateway.internal"])
        drive.call(lambda: client.chat.completions.create(**ASK))
    finally:
        posthog_llm.configure(gateways=[])
    first, second = (request.headers for request in provider.requests)
    assert first[dedup.HEADER] == sink.wait_for(2)[0].properties["$ai_span_id"]
    assert dedup.HEADER not in second


def test_misuse_of_gateways() -> None:
    with pytest.raises(TypeError, match="gateways"):
        posthog_llm.configure(gateways="gateway.internal")
    with pytest.raises(ValueError, match="http://gateway"):
        posthog_llm.configure(gateways=["http://gateway"])


@pytest.mark.parametrize("host", ["gateway.us.posthog.com", "ai-gateway.eu.posthog.com"])
def test_posthogs_own_gateway_tells_itself(
    drive: Driver,
    sink: MemorySink,
    provider: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
) -> None:
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, *more, **how: look_up("127.0.0.1", *more, **how)
    )
    for name, events in ((host, 0), ("gateway.example.com", 1)):
        place = provider.base_url.replace("127.0.0.1", name)
        client = drive.ours(posthog_client=sink, base_url=place)
        drive.call(lambda client=client: client.chat.completions.create(**ASK))
        sink.wait_for(events)
    assert len(provider.requests) == 2


def handlers() -> Any:
    pytest.importorskip("langchain_openai", reason="LangChain is in the gateway session")
    from posthog.ai.langchain import CallbackHandler

    return CallbackHandler


class Recorder:
    """The `posthog` client that LangChain's handler is given."""

    privacy_mode = False

    def __init__(self) -> None:
        self.captured: list[str] = []

    def capture(self, *args: Any, **kwargs: Any) -> None:
        self.captured.append(kwargs.get("event") or args[0])

    capture_ai = capture

    @property
    def generations(self) -> int:
        return self.captured.count("$ai_generation")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_langchains_handler_over_our_client(
    provider: ScriptedProvider, sink: MemorySink, stream: bool, is_async: bool
) -> None:
    handler = handlers()
    from langchain_openai import ChatOpenAI

    from posthog_llm.openai import AsyncOpenAI, OpenAI

    place: Any = {"base_url": provider.base_url, "api_key": "k", "posthog_client": sink}
    client = OpenAI(**place)
    model = ChatOpenAI(
        model="gpt-4o",
        api_key="k",
        client=client.chat.completions,
        async_client=AsyncOpenAI(**place).chat.completions,
    )
    recorder = Recorder()
    telling = {"callbacks": [handler(recorder)]}

    async def ask(config: Any) -> None:
        if stream:
            assert [piece async for piece in model.astream("hi", config)]
        else:
            await model.ainvoke("hi", config)

    loop = asyncio.new_event_loop()  # one: connections of the newest SDKs outlive no loop

    def ask_now(config: Any) -> None:
        if is_async:
            loop.run_until_complete(ask(config))
        elif stream:
            assert list(model.stream("hi", config))
        else:
            model.invoke("hi", config)

    ask_now(telling)
    assert recorder.generations == 1
    sink.wait_for(0)
    ask_now({})
    loop.close()
    sink.wait_for(1)
    assert recorder.generations == 1


@pytest.mark.filterwarnings("ignore")
def test_a_users_hook_in_litellm_makes_calls_of_its_own(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    litellm = pytest.importorskip("litellm", reason="LiteLLM is in the gateway session")
    from litellm.integrations.custom_logger import CustomLogger

    from posthog_llm.litellm import PostHogLogger
    from posthog_llm.openai import OpenAI

    client = OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)

    class Guard(CustomLogger):
        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            client.chat.completions.create(**ASK)

    before = litellm.callbacks, litellm.input_callback
    litellm.callbacks = [PostHogLogger(posthog_client=MemorySink()), Guard()]
    try:
        place = {"api_base": provider.base_url, "api_key": "k"}
        litellm.completion("openai/gpt-4o", ASK["messages"], **place)
    finally:
        litellm.callbacks, litellm.input_callback = before
    sink.wait_for(1)


@pytest.mark.filterwarnings("ignore")
def test_suppression_does_not_leak(provider: ScriptedProvider, sink: MemorySink) -> None:
    """A call that LiteLLM makes does not silence one that runs beside it."""
    litellm = pytest.importorskip("litellm", reason="LiteLLM is in the gateway session")
    from posthog_llm.litellm import PostHogLogger
    from posthog_llm.openai import OpenAI

    client = OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)
    direct = MemorySink()
    litellm.callbacks = [PostHogLogger(posthog_client=sink)]

    def beside() -> None:
        client.chat.completions.create(**ASK, posthog_client=direct)

    try:
        for _ in range(5):
            thread = threading.Thread(target=beside)
            thread.start()
            litellm.completion("openai/gpt-4o", ASK["messages"], client=client)
            thread.join()
    finally:
        litellm.callbacks = []
    direct.wait_for(5)
