"""Clients that others make: watched by `instrument`, on the same seam."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from posthog_llm import context, event_id, instrument, trace, uninstrument
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver, every_provider, every_sdk


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    uninstrument()


UNLIKE = ("$ai_latency", "$ai_time_to_first_token", "$ai_trace_id", "$ai_span_id")
UNLIKE += ("posthog_llm_response_id",)


@every_sdk
@pytest.mark.parametrize("stream", [False, True])
def test_same_event_as_our_client(drive: Driver, sink: MemorySink, stream: bool) -> None:
    more = {"stream": True} if stream else {}
    ours, bare = drive.ours(posthog_client=sink), drive.bare()
    for client in (ours, bare):
        if client is bare:
            instrument(sink)
        answer = drive.ask(client, **more)
        if stream:
            assert drive.items(answer)
        assert event_id(answer)
    first, second = (dict(event.properties) for event in sink.wait_for(2))
    for name in UNLIKE:
        assert (name in first) == (name in second)
        first.pop(name, None)
        second.pop(name, None)
    assert first == second


@every_sdk
def test_once_beside_our_clients_and_again(drive: Driver, sink: MemorySink) -> None:
    other = MemorySink()
    instrument(other)
    instrument(sink)
    drive.ask(drive.ours(posthog_client=sink))
    sink.wait_for(1)
    drive.ask(drive.bare())
    sink.wait_for(2)
    other.wait_for(0)


@every_provider
def test_reversible(drive: Driver, sink: MemorySink) -> None:
    classes: set[Any] = set()
    for sdk in (openai, anthropic):
        for module in (sdk, sdk._base_client):
            classes |= {found for found in list(vars(module).values()) if isinstance(found, type)}
    client = drive.bare()
    drive.ask(client)  # Python notes a thing or two in a class that is used for the first time
    before = [(cls, dict(cls.__dict__)) for cls in classes]
    instrument(sink)
    drive.ask(client)
    uninstrument()
    drive.ask(client)
    sink.wait_for(1)
    for cls, names in before:
        assert dict(cls.__dict__) == names
    instrument(sink)
    drive.ask(client)
    sink.wait_for(2)


def test_one_sdk_alone(provider: ScriptedProvider, sink: MemorySink) -> None:
    instrument(sink, openai=False)
    client = openai.OpenAI(base_url=provider.base_url, api_key="k")
    client.chat.completions.create(model="m", messages=[])
    sink.wait_for(0)


@every_sdk
def test_who_asks(drive: Driver, sink: MemorySink) -> None:
    instrument(sink)
    client = drive.bare()
    with context(distinct_id="user-7"), trace("t") as t:
        drive.ask(client)
    generation, step = sink.wait_for(2)
    assert step.event == "$ai_trace"
    assert generation.distinct_id == "user-7"
    assert generation.properties["$ai_parent_id"] == t.id
    with context(capture=False):
        drive.ask(client)
    sink.wait_for(2)


@every_provider
def test_failures_are_the_sdks(drive: Driver, sink: MemorySink) -> None:
    client, error = drive.bare(), Reply.json({"error": {"message": "no"}}, status=429)
    caught: list[Any] = []
    for watched in (False, True):
        drive.provider.script(drive.vendor.path, error)
        if watched:
            instrument(sink)
        with pytest.raises(drive.vendor.sdk.RateLimitError) as failure:
            drive.ask(client)
        caught.append((type(failure.value), str(failure.value)))
    assert caught[0] == caught[1]
    assert sink.wait_for(1)[0].properties["$ai_http_status"] == 429


def test_provider_of_a_class(provider: ScriptedProvider, sink: MemorySink) -> None:
    instrument(sink)
    client = openai.AzureOpenAI(base_url=provider.base_url, api_key="k", api_version="2024-06-01")
    with pytest.raises(openai.NotFoundError):  # it asks for a path of its own
        client.chat.completions.create(model="m", messages=[])
    assert sink.wait_for(1)[0].properties["$ai_provider"] == "azure"


PROGRAM = """
    import sys
    import posthog_llm
    from posthog_llm.testing import MemorySink, ScriptedProvider

    sink = MemorySink()
    posthog_llm.instrument(sink)
    assert "openai" not in sys.modules and "anthropic" not in sys.modules
    import openai

    assert "anthropic" not in sys.modules
    with ScriptedProvider() as provider:
        client = openai.OpenAI(base_url=provider.base_url, api_key="k")
        client.chat.completions.create(model="m", messages=[])
    sink.wait_for(1)
    posthog_llm.uninstrument()
    import anthropic

    assert "_posthog" not in vars(anthropic._base_client.SyncAPIClient)
"""


def test_sdks_that_are_imported_later() -> None:
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("again", [False, True])
def test_what_has_begun_is_observed_to_its_end(
    drive: Driver, sink: MemorySink, again: bool
) -> None:
    """`uninstrument`, and perhaps `instrument` once more, while a request is on its way."""
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
    word = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    drive.provider.script(drive.vendor.path, Reply.stream([word, usage]))
    owners = [openai._base_client.SyncAPIClient, openai._base_client.AsyncAPIClient]
    before = [dict(vars(cls)) for cls in owners]

    def off(response: Any) -> None:
        uninstrument()
        if again:
            instrument(sink)

    async def aoff(response: Any) -> None:
        off(response)

    kind, hook = (
        (openai.DefaultAsyncHttpxClient, aoff) if drive.prefix else (openai.DefaultHttpxClient, off)
    )
    http = kind(event_hooks={"response": [hook]})
    client = drive.bare(http_client=http, base_url=drive.provider.base_url)
    instrument(sink)
    (chunk,) = drive.items(drive.ask(client, stream=True))
    assert chunk.choices[0].delta.content == "hi"
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_tokens"] == 2
    assert ([dict(vars(cls)) for cls in owners] == before) is not again
    drive.ask(drive.bare())
    sink.wait_for(1 + again)


def copying(below: Any, *, waits: bool) -> Any:
    """Return what another library puts in the place of `request`: a plain function."""

    def theirs(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        return below(self, cast_to, copy.copy(options), **kwargs)

    async def atheirs(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        return await below(self, cast_to, copy.copy(options), **kwargs)

    return atheirs if waits else theirs


@every_provider
def test_around_a_patch_that_copies_options_and_below_it(
    drive: Driver, sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = drive.vendor.sdk._base_client
    cls = base.AsyncAPIClient if drive.prefix else base.SyncAPIClient
    monkeypatch.setattr(cls, "request", cls.request)  # as it is now, it will be again
    instrument(sink)
    cls.request = copying(cls.request, waits=bool(drive.prefix))
    uninstrument()
    instrument(sink)
    drive.ask(drive.bare())
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_choices"]
    uninstrument()


@every_provider
def test_same_request_by_a_hook_is_a_call_of_its_own(drive: Driver, sink: MemorySink) -> None:
    asked: list[Any] = []

    def see(client: Any) -> Any:
        asked.append(client)
        return drive.vendor.create(client, model="m", messages=[]) if len(asked) == 1 else None

    class Sync(drive.vendor.sdk.__dict__[drive.names[0]]):  # type: ignore[misc]
        def _prepare_request(self, request: Any) -> None:
            see(self)

    class Async(drive.vendor.sdk.__dict__[drive.names[0]]):  # type: ignore[misc]
        async def _prepare_request(self, request: Any) -> None:
            if (answer := see(self)) is not None:
                await answer

    instrument(sink)
    client = (Async if drive.prefix else Sync)(
        api_key="test-key-123", base_url=drive.provider.url + drive.vendor.base_path
    )
    drive.ask(client)
    assert len({event.uuid for event in sink.wait_for(2)}) == 2


def test_misuse() -> None:
    with pytest.raises(TypeError, match="posthog_client"):
        instrument("phc_key")
    with pytest.raises(TypeError, match="'opnai'; it knows openai, anthropic"):
        instrument(opnai=False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="openai must be True or False"):
        instrument(openai="no")  # type: ignore[arg-type]
