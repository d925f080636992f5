"""Gemini: who asks, chats, functions that the SDK runs, and clients that others make."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import posthog_llm
from posthog_llm import event_id, instrument, uninstrument
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import saying

genai = pytest.importorskip("google.genai", reason="Google's SDK is not installed")
from posthog_llm import gemini as ours  # noqa: E402 - needs Google's SDK

from .test_gemini import ASK, MODEL, PLAIN, STREAM, Asking, asking  # noqa: E402

__all__ = ["asking"]


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    uninstrument()


def get_weather(city: str) -> dict[str, Any]:
    """Return the weather of a city."""
    return {"city": city, "degrees": 23}


# -- our arguments -----------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_arguments_of_a_call(asking: Asking, streamed: bool) -> None:
    client = asking.client(posthog_distinct_id="client", posthog_properties={"a": 1})
    more: dict[str, Any] = {"posthog_distinct_id": "user-7", "posthog_properties": {"b": 2}}
    more.update(posthog_trace_id="t1", posthog_groups={"company": "acme"})
    if streamed:
        asking.items(asking.stream(client, **more))
        asking.items(asking.stream(client))
    else:
        asking.ask(client, **more)
        asking.ask(client)
    call, plain = asking.sink.wait_for(2)
    assert (call.distinct_id, plain.distinct_id) == ("user-7", "client")
    assert (call.properties["a"], call.properties["b"]) == (1, 2)
    assert call.properties["$ai_trace_id"] == "t1"
    assert call.groups == {"company": "acme"}
    assert "b" not in plain.properties
    assert not [r for r in asking.provider.requests if b"posthog" in r.body]


def test_wrong_arguments_are_refused(asking: Asking) -> None:
    client = asking.client()
    with pytest.raises(TypeError, match="posthog_distinct_idd"):
        asking.ask(client, posthog_distinct_idd="typo")
    with pytest.raises(TypeError, match="posthog_properties"):
        asking.ask(client, posthog_properties=7)
    with pytest.raises(TypeError, match="posthog_redact"):
        asking.client(posthog_redact=7)
    assert asking.provider.requests == []


def test_stream_keeps_the_context_it_was_opened_in(asking: Asking) -> None:
    client = asking.client()
    with posthog_llm.trace("opened", distinct_id="u1") as opened:
        stream = asking.stream(client)
    with posthog_llm.context(distinct_id="someone else"):
        asking.items(stream)
    (generation,) = asking.sink.wait_for(1)
    assert generation.distinct_id == "u1"
    assert generation.properties["$ai_trace_id"] == opened.id


@pytest.mark.parametrize("watched", [False, True])
def test_event_of_an_answer(asking: Asking, watched: bool) -> None:
    if watched:
        instrument(asking.sink)
    client = asking.client(genai if watched else ours)
    answer, stream = asking.ask(client), asking.stream(client)
    assert event_id(stream) is None
    asking.items(stream)
    assert [event_id(answer), event_id(stream)] == [e.uuid for e in asking.sink.wait_for(2)]


# -- chats -------------------------------------------------------------------------------


def test_chat(asking: Asking) -> None:
    chat = asking.chats(asking.client()).create(model=MODEL, config={"temperature": 0.5})
    assert asking.call(chat.send_message, message="one", posthog_distinct_id="u1").text
    stream = chat.send_message_stream("two", posthog_distinct_id="u2")
    asking.items(asking.loop.run_until_complete(stream) if asking.how != "sync" else stream)
    said = [part.text for turn in chat.get_history() for part in turn.parts]
    assert "".join(said) == "oneYou said: onetwoYou said: two"
    first, second = asking.sink.wait_for(2)
    assert (first.distinct_id, second.distinct_id) == ("u1", "u2")
    assert [m["role"] for m in second.properties["$ai_input"]] == ["user", "assistant", "user"]
    assert second.properties["$ai_model_parameters"] == {"temperature": 0.5}
    assert first.properties["$ai_trace_id"] != second.properties["$ai_trace_id"]


def test_objects_are_the_sdks(provider: ScriptedProvider, sink: MemorySink) -> None:
    client, bare = (Asking(provider, sink, "sync").client(module) for module in (ours, genai))
    assert isinstance(client, genai.Client)
    chats = [c.chats.create(model=MODEL) for c in (client, bare)]
    pairs = [(client.models, bare.models), (client.aio, bare.aio), tuple(chats)]
    pairs += [(client.aio.models, bare.aio.models), (client._api_client, bare._api_client)]
    for own, theirs in pairs:
        assert isinstance(own, type(theirs))
        assert type(own).__qualname__ == type(theirs).__qualname__
        assert type(own).__module__ == type(theirs).__module__
        assert type(own).__doc__ == type(theirs).__doc__
    for name in ("generate_content", "generate_content_stream"):
        for own, theirs in ((client.models, bare.models), (client.aio.models, bare.aio.models)):
            mine, yours = getattr(own, name), getattr(theirs, name)
            assert inspect.signature(mine) == inspect.signature(yours)
            assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(yours)
            assert mine.__doc__ == yours.__doc__
    assert client.models.vertexai is bare.models.vertexai
    assert ours.types is genai.types
    assert ours.__all__ == genai.__all__
    names = inspect.signature(ours.Client).parameters
    assert {"api_key", "posthog_client", "posthog_redact"} <= names.keys()


def test_connections_stay_open_as_long_as_a_stream(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    """The SDK closes them when its objects are let go; ours share them, and close nothing."""
    asking = Asking(provider, sink, "sync")
    client = asking.client()
    client.models.generate_content(**ASK)
    sink.wait_for(1)  # the event, and all that it held, is gone
    client.models.generate_content(**ASK)
    sink.wait_for(2)
    assert not client._api_client._httpx_client.is_closed


# -- functions ---------------------------------------------------------------------------


def script_weather(asking: Asking, path: str) -> None:
    asking.provider.script(path, Reply.tool_call("get_weather", {"city": "Lisbon"}))
    asking.provider.script(path, Reply.text("It is 23 degrees."))


def check_turns(asking: Asking, **same: Any) -> None:
    call, answer = asking.sink.wait_for(2)
    assert call.properties["$ai_trace_id"] == answer.properties["$ai_trace_id"]
    (said,) = call.properties["$ai_output_choices"][0]["content"]
    assert said["function"] == {"name": "get_weather", "arguments": {"city": "Lisbon"}}
    assert answer.properties["$ai_output_choices"] == saying("It is 23 degrees.")
    result = answer.properties["$ai_input"][-1]["content"][0]
    assert (result["type"], result["tool_name"]) == ("tool_result", "get_weather")
    for event in (call, answer):
        assert event.properties["$ai_input_tokens"] > 0
        for name, value in same.items():
            assert getattr(event, name) == value


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_functions_are_run_in_one_trace(asking: Asking, streamed: bool, watched: bool) -> None:
    script_weather(asking, STREAM if streamed else PLAIN)
    if watched:
        instrument(asking.sink)
    client = asking.client(genai if watched else ours)
    more: dict[str, Any] = {} if watched else {"posthog_distinct_id": "u1"}
    more["config"] = {"tools": [get_weather]}
    if streamed:
        asking.items(asking.stream(client, **more))
    else:
        assert asking.ask(client, **more).text == "It is 23 degrees."
    check_turns(asking, **({} if watched else {"distinct_id": "u1"}))


@pytest.mark.parametrize("watched", [False, True])
def test_chat_runs_functions_in_one_trace(asking: Asking, watched: bool) -> None:
    script_weather(asking, PLAIN)
    if watched:
        instrument(asking.sink)
    client = asking.client(genai if watched else ours)
    chat = asking.chats(client).create(model=MODEL, config={"tools": [get_weather]})
    assert asking.call(chat.send_message, message="weather?").text == "It is 23 degrees."
    check_turns(asking)


def test_given_trace_stays(asking: Asking) -> None:
    script_weather(asking, PLAIN)
    asking.ask(asking.client(), config={"tools": [get_weather]}, posthog_trace_id="mine")
    check_turns(asking)
    assert asking.sink.events[0].properties["$ai_trace_id"] == "mine"


def test_calls_of_a_function_are_their_own(provider: ScriptedProvider, sink: MemorySink) -> None:
    """A function that the SDK runs may ask, too: arguments are of one call."""
    asking = Asking(provider, sink, "sync")
    client = asking.client(posthog_distinct_id="client")

    def look_up(city: str) -> str:
        """Look a city up."""
        return str(client.models.generate_content(model="inner", contents=city).text)

    look_up.__annotations__ = {"city": str, "return": str}  # old SDKs cannot read texts
    provider.script(PLAIN, Reply.tool_call("look_up", {"city": "Lisbon"}), Reply.text("Done."))
    client.models.generate_content(
        **ASK, config={"tools": [look_up]}, posthog_distinct_id="u1", posthog_trace_id="t1"
    )
    outer, inner, last = sink.wait_for(3)
    assert [e.distinct_id for e in (outer, inner, last)] == ["u1", "client", "u1"]
    assert inner.properties["$ai_model"] == "inner"
    assert inner.properties["$ai_trace_id"] != "t1"


def test_calls_in_threads_do_not_mix(provider: ScriptedProvider, sink: MemorySink) -> None:
    client = Asking(provider, sink, "sync").client()

    def ask(user: str) -> None:
        for _ in range(5):
            client.models.generate_content(model=MODEL, contents=user, posthog_distinct_id=user)

    threads = [threading.Thread(target=ask, args=(f"user-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for event in sink.wait_for(20):
        assert event.properties["$ai_input"][0]["content"][0]["text"] == event.distinct_id


# -- instrument --------------------------------------------------------------------------

UNLIKE = ("$ai_latency", "$ai_time_to_first_token", "$ai_trace_id", "$ai_span_id")
UNLIKE += ("posthog_llm_response_id",)


@pytest.mark.parametrize("streamed", [False, True])
def test_same_event_as_our_client(asking: Asking, streamed: bool) -> None:
    for module in (ours, genai):
        if module is genai:
            instrument(asking.sink)
        client = asking.client(module)
        asking.items(asking.stream(client)) if streamed else asking.ask(client)
    first, second = (dict(event.properties) for event in asking.sink.wait_for(2))
    for name in UNLIKE:
        assert (name in first) == (name in second)
        first.pop(name, None)
        second.pop(name, None)
    assert first == second


def test_once_beside_our_clients(asking: Asking) -> None:
    other = MemorySink()
    instrument(other)
    asking.ask(asking.client())
    asking.sink.wait_for(1)
    other.wait_for(0)
    asking.ask(asking.client(genai))
    other.wait_for(1)


def test_reversible(asking: Asking) -> None:
    classes = [genai._api_client.BaseApiClient, genai.models.Models, genai.models.AsyncModels]
    classes += [genai.chats.Chat, genai.chats.AsyncChat]
    client = asking.client(genai)
    asking.ask(client)
    before = [dict(cls.__dict__) for cls in classes]
    instrument(asking.sink)
    asking.ask(client)
    uninstrument()
    asking.ask(client)
    asking.sink.wait_for(1)
    assert [dict(cls.__dict__) for cls in classes] == before


def test_not_wanted(asking: Asking) -> None:
    instrument(asking.sink, gemini=False)
    asking.ask(asking.client(genai))
    asking.sink.wait_for(0)


def test_subclasses_of_the_client_work(provider: ScriptedProvider, sink: MemorySink) -> None:
    class Mine(ours.Client):  # type: ignore[misc, unused-ignore]
        def __init__(self, place: str, **more: Any) -> None:
            super().__init__(api_key="k", http_options={"base_url": place}, **more)

    client = Mine(provider.url, posthog_client=sink)
    client.models.generate_content(**ASK)
    sink.wait_for(1)


PROGRAM = """
    import sys
    import posthog_llm
    from posthog_llm.testing import MemorySink, ScriptedProvider

    sink = MemorySink()
    posthog_llm.instrument(sink)
    assert not [name for name in sys.modules if name.startswith("google.genai")]
    from google import genai

    assert "google.genai._gaos" not in sys.modules
    with ScriptedProvider() as provider:
        client = genai.Client(api_key="k", http_options={"base_url": provider.url})
        client.models.generate_content(model="m", contents="hi")
        sink.wait_for(1)
"""


def test_instrument_imports_nothing() -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr


def test_redactor_sees_every_text_and_no_structure(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    seen: list[str] = []

    def redact(text: str) -> str:
        seen.append(text)
        return "X"

    asking = Asking(provider, sink, "sync")
    script_weather(asking, PLAIN)
    client = asking.client(posthog_redact=redact)
    client.models.generate_content(**ASK, config={"tools": [get_weather]})
    call, answer = sink.wait_for(2)
    assert {"weather?", "Lisbon", "It is 23 degrees."} <= set(seen)
    assert call.properties["$ai_output_choices"] == [
        {
            "role": "assistant",
            "content": [{"type": "function", "function": {"name": "X", "arguments": {"X": "X"}}}],
        }
    ]
    assert answer.properties["$ai_output_choices"] == saying("X")
    assert [m["role"] for m in answer.properties["$ai_input"]] == ["user", "assistant", "user"]
    assert answer.properties["$ai_input"][-1]["content"][0]["type"] == "tool_result"
