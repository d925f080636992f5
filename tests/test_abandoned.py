"""A stream that is let go of is captured at once: the garbage collector never runs here."""

from __future__ import annotations

import asyncio
import copy
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from posthog_llm import instrument, uninstrument
from posthog_llm.testing import MemorySink

from .driving import ANTHROPIC, QUESTION, AsyncDriver, Driver, every_provider, saying

Form = Callable[[Driver, Any], Any]


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def owner_of(drive: Driver, client: Any) -> Any:
    return client.messages if drive.vendor is ANTHROPIC else client.chat.completions


def plain(drive: Driver, client: Any) -> Any:
    return drive.ask(client, stream=True)


def parsed_from_raw(drive: Driver, client: Any) -> Any:
    more = {**QUESTION, "max_tokens": 9, "stream": True}
    raw = drive.call(lambda: owner_of(drive, client).with_raw_response.create(**more))
    return drive.call(raw.parse)


def parsed_from_streaming(drive: Driver, client: Any) -> Any:
    """Without leaving the block that would close it."""
    more = {**QUESTION, "max_tokens": 9, "stream": True}
    manager = owner_of(drive, client).with_streaming_response.create(**more)
    return drive.call(entered(drive, manager).parse)


def entered(drive: Driver, manager: Any) -> Any:
    name = "__aenter__" if isinstance(drive, AsyncDriver) else "__enter__"
    return drive.call(getattr(manager, name))


FORMS = [plain, parsed_from_raw, parsed_from_streaming]


def captured(drive: Driver, sink: MemorySink) -> dict[str, Any]:
    """Return the one event, which must be there by now."""
    if isinstance(drive, AsyncDriver):
        # An event loop closes half-read async generators in tasks, one after another.
        drive.loop.run_until_complete(asyncio.sleep(0.05))
    (event,) = sink.wait_for(1)
    assert "$ai_is_error" not in event.properties
    return dict(event.properties)


@every_provider
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("read", [0, 2])
def test_let_go(drive: Driver, sink: MemorySink, form: Form, watched: bool, read: int) -> None:
    if watched:
        instrument(sink)
    try:
        client = drive.bare() if watched else drive.ours(posthog_client=sink)
        stream = form(drive, client)
        if read and sys.version_info < (3, 11):
            pytest.skip("contextlib of Python 3.10 keeps the frames that were left in a cycle")
        if read:
            assert len(drive.items(stream, most=read)) == read
        del stream
        properties = captured(drive, sink)
    finally:
        uninstrument()
    ways = ("closed_early", "dropped") if read else ("dropped",)
    assert properties["posthog_llm_outcome"] in ways
    assert properties["$ai_input"] == QUESTION["messages"]


@every_provider
def test_last_reference_is_the_http_response(drive: Driver, sink: MemorySink) -> None:
    """The stream is gone, its response is not: what is read of it counts."""
    response = plain(drive, drive.ours(posthog_client=sink)).response
    lines = drive.items(
        response.aiter_lines() if isinstance(drive, AsyncDriver) else response.iter_lines()
    )
    assert len(lines) > 5
    assert response.elapsed.total_seconds() > 0
    properties = captured(drive, sink)
    assert properties["posthog_llm_outcome"] == "ok"
    assert properties["$ai_output_choices"] == saying("You said: hi")


@every_provider
def test_stream_looks_like_the_bare_sdks(drive: Driver, sink: MemorySink) -> None:
    bare, ours = (
        plain(drive, drive.bare()),
        plain(drive, drive.ours(posthog_client=sink)),
    )
    names = [{*vars(stream)} | {*dir(stream)} for stream in (bare, ours)]
    assert names[0] == names[1]
    assert type(ours) is type(bare)
    assert type(ours._iterator) is type(bare._iterator)
    assert ours._iterator.__qualname__ == bare._iterator.__qualname__
    assert type(ours.response) is type(bare.response)
    both = copy.copy(ours)
    first, rest = drive.items(ours, most=1), drive.items(both)
    assert kinds(first + rest) == kinds(drive.items(bare))
    assert captured(drive, sink)["posthog_llm_outcome"] == "ok"
    for stream in (bare, ours):
        drive.call(stream.close)


def kinds(items: list[Any]) -> list[Any]:
    return [type(item).__name__ for item in items]


@every_provider
def test_streams_of_the_callers_own_class_stay_as_they_are(drive: Driver, sink: MemorySink) -> None:
    base: Any = type(plain(drive, drive.bare()))
    found = vars(drive.vendor.sdk)["AsyncStream" if isinstance(drive, AsyncDriver) else "Stream"]
    assert base is found

    class Counting(base[object]):  # type: ignore[misc]
        count = 0

        def __stream__(self) -> Any:
            return self._acounted() if isinstance(drive, AsyncDriver) else self._counted()

        def _counted(self) -> Any:
            for item in super().__stream__():
                self.count += 1
                yield item

        async def _acounted(self) -> Any:
            async for item in super().__stream__():
                self.count += 1
                yield item

    path = drive.vendor.path if drive.vendor is not ANTHROPIC else "/v1/messages"
    body = {**QUESTION, "max_tokens": 9, "stream": True}
    how: Any = {"cast_to": object, "stream": True, "stream_cls": Counting}
    counted = []
    for client in (drive.bare(), drive.ours(posthog_client=sink)):
        stream = drive.call(lambda: client.post(path, body=body, **how))  # noqa: B023
        assert len(drive.items(stream)) > 3
        counted.append(stream.count)
    assert counted[0] == counted[1]
    assert captured(drive, sink)["posthog_llm_outcome"] == "ok"


def test_post_parser_of_the_caller_still_parses(drive: Driver, sink: MemorySink) -> None:
    """The SDK's own hook for what it made of an answer is ours, too; theirs comes after."""
    parsed: list[Any] = []

    def parser(answer: Any) -> Any:
        parsed.append(type(answer))
        return answer

    options: list[Any] = []
    base = getattr(drive.vendor.ours, drive.names[0])

    class Parsing(base):  # type: ignore[misc]
        def request(self, cast_to: Any, given: Any, **kwargs: Any) -> Any:
            given.post_parser = parser
            options.append(given)
            return super().request(cast_to, given, **kwargs)

    url = drive.provider.url + drive.vendor.base_path
    client = Parsing(api_key="test", base_url=url, posthog_client=sink)
    stream = plain(drive, client)
    assert parsed == [type(stream)]
    assert options[0].post_parser is parser
    drive.items(stream)
    assert captured(drive, sink)["posthog_llm_outcome"] == "ok"
