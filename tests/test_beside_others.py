"""Other libraries that watch the SDKs, beside ours: in either order, each call is one event."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import wrapt

from posthog_llm import instrument, uninstrument
from posthog_llm.testing import MemorySink, Reply

from .driving import ANTHROPIC, AsyncDriver, Driver, every_provider, saying

OTHERS = ["openinference", "traceloop", "logfire", "langfuse", "ddtrace"]
WITH_SPANS = OTHERS[:3]


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    uninstrument()


@pytest.mark.skipif(
    importlib.util.find_spec("ddtrace") is None, reason="runs in the beside session"
)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("other", OTHERS)
def test_one_event_each(other: str, when: str) -> None:
    command = [sys.executable, "-m", "tests.beside", other, when]
    # Logfire raises its own faults where it thinks that its own tests run.
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=env)
    assert run.returncode == 0, run.stderr
    properties: dict[str, Any] = json.loads(run.stdout.rpartition("told ")[2])
    assert properties["watched"] == [1] * 16
    assert properties["ours"] == [1] * 8
    assert properties["off"] == [0] * 16
    assert properties["ours, off"] == [1] * 8
    assert properties["again"] == [1] * 16
    assert properties["alone"] == [1] * 16
    assert properties["off at last"] == [0] * 8
    assert properties["faults"] == {}
    assert bool(properties["spans"]) is (other in WITH_SPANS)
    assert (properties["spans, off"] > properties["spans"]) is (other in WITH_SPANS)


class Other:
    """A library that puts its own function around one of the SDK's, as those above do."""

    def __init__(self, owner: Any, name: str) -> None:
        self.calls: list[Any] = []
        self._owner, self._name = owner, name
        self._before = vars(owner).get(name)
        self._wrapped = getattr(owner, name)
        setattr(owner, name, wrapt.FunctionWrapper(self._wrapped, self._called))

    def _called(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        self.calls.append(instance)
        return wrapped(*args, **kwargs)

    def undo(self) -> None:
        if self._before is None:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._before)


@pytest.fixture
def others(drive: Driver) -> Iterator[list[Other]]:
    """Others that a test has put in; they are taken out at its end."""
    found: list[Other] = []
    yield found
    for other in reversed(found):
        other.undo()


def sdk_class(drive: Driver) -> Any:
    return getattr(drive.vendor.sdk, drive.names[0])


def asked(drive: Driver, sink: MemorySink, client: Any) -> int:
    """Return how many events a call of `client` gave; each must be whole."""
    before = len(sink.events)
    drive.ask(client)
    for event in sink.events[before:]:
        assert event.properties["$ai_output_choices"] == saying("You said: hi")
    return len(sink.events) - before


@every_provider
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_request_of_a_class_is_theirs(
    drive: Driver, sink: MemorySink, others: list[Other], first: str
) -> None:
    early, late = drive.bare(), []
    drive.ask(early)
    for turn in ("theirs", "ours") if first == "theirs" else ("ours", "theirs"):
        if turn == "ours":
            instrument(sink)
        else:
            others.append(Other(sdk_class(drive), "request"))
    late.append(drive.bare())
    assert [asked(drive, sink, client) for client in (early, *late)] == [1, 1]
    uninstrument()
    assert [asked(drive, sink, client) for client in (early, *late)] == [0, 0]
    instrument(sink)
    assert [asked(drive, sink, client) for client in (early, *late)] == [1, 1]
    assert others[0].calls == [early, *late] * 3


@every_provider
def test_request_of_one_client_is_theirs(drive: Driver, sink: MemorySink) -> None:
    instrument(sink)
    client = drive.bare()
    client.request = functools.partial(client.request)
    assert asked(drive, sink, client) == 1
    drive.provider.script(drive.vendor.path, Reply.json({"error": {"message": "no"}}, 400))
    with pytest.raises(drive.vendor.sdk.BadRequestError):
        drive.ask(client)
    assert [event.properties.get("$ai_is_error", False) for event in sink.wait_for(2)] == [
        False,
        True,
    ]


@every_provider
def test_subclass_that_asks_twice_is_two_calls(drive: Driver, sink: MemorySink) -> None:
    class Twice(sdk_class(drive)):  # type: ignore[misc]
        def request(self, *args: Any, **kwargs: Any) -> Any:
            return self._atwice(*args, **kwargs) if waits else self._twice(*args, **kwargs)

        def _twice(self, *args: Any, **kwargs: Any) -> Any:
            super().request(*args, **kwargs)
            return super().request(*args, **kwargs)

        async def _atwice(self, *args: Any, **kwargs: Any) -> Any:
            await super().request(*args, **kwargs)
            return await super().request(*args, **kwargs)

    waits = isinstance(drive, AsyncDriver)
    instrument(sink)
    url = drive.provider.url + drive.vendor.base_path
    assert asked(drive, sink, Twice(api_key="test", base_url=url)) == 2


@every_provider
@pytest.mark.parametrize("name", ["_process_response", "request"])
def test_undoing_theirs_leaves_ours(
    drive: Driver, sink: MemorySink, others: list[Other], name: str
) -> None:
    """Some undo by putting the outermost wrapper's `__wrapped__` in its place."""
    kind = "AsyncAPIClient" if isinstance(drive, AsyncDriver) else "SyncAPIClient"
    base = getattr(drive.vendor.sdk._base_client, kind)
    before = vars(base)[name]
    others.append(Other(base, name))
    instrument(sink)
    client = drive.bare()
    assert asked(drive, sink, client) == 1
    setattr(base, name, getattr(base, name).__wrapped__)
    assert asked(drive, sink, client) == 1
    assert others[0].calls == [client]
    uninstrument()
    assert vars(base)[name] is before


@every_provider
def test_wrappers_of_the_resources_methods(
    drive: Driver, sink: MemorySink, others: list[Other]
) -> None:
    """Before and after our class of the resource was made, theirs learn whose method it is."""
    client = drive.ours(posthog_client=sink)
    bare: Any = drive.bare()
    owner = type(bare.messages if drive.vendor is ANTHROPIC else bare.chat.completions)
    others.append(Other(owner, "create"))
    assert asked(drive, sink, client) == 1
    others.append(Other(owner, "create"))
    assert asked(drive, sink, drive.ours(posthog_client=sink)) == 1
    assert [len(other.calls) for other in others] == [2, 1]
    assert all(isinstance(found, owner) for other in others for found in other.calls)


@every_provider
def test_what_they_see_of_our_arguments_is_text(drive: Driver, sink: MemorySink) -> None:
    seen: list[str] = []
    bare: Any = drive.bare()
    owner = type(bare.messages if drive.vendor is ANTHROPIC else bare.chat.completions)
    create = owner.create

    @functools.wraps(create)
    def logging(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(json.dumps(kwargs))
        return create(self, *args, **kwargs)

    owner.create = logging
    try:
        drive.ask(drive.ours(posthog_client=sink), posthog_distinct_id="ann")
    finally:
        owner.create = create
    assert len(seen) == 1
    assert "ann" not in seen[0]
    assert sink.wait_for(1)[0].distinct_id == "ann"
