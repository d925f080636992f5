"""What a program hands over is captured as it was at the call, and objects that resist by type."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import posthog
import pytest

import posthog_llm
from posthog_llm import generation, span
from posthog_llm._observe import event_ids
from posthog_llm._snapshot import snapshot
from posthog_llm.openai import OpenAI
from posthog_llm.testing import MemorySink, ScriptedProvider


def test_what_changes_after_the_call_is_captured_as_it_was(sink: MemorySink) -> None:
    asked: Any = [{"content": [{"text": "before"}]}]
    gave: Any = {"deep": ({"list": ["before"]},)}
    with posthog_llm.context(posthog_client=sink):
        with span("s", input=asked) as step:
            asked[0]["content"][0]["text"] = "after"
            step.output = gave
            step.properties["p"] = {"nested": ["before"]}
        step.properties["p"]["nested"][0] = gave["deep"][0]["list"][0] = "after"
        asked[0]["content"][0]["text"] = gave["deep"][0]["list"][0] = "before"
        posthog_llm.capture_generation(model="m", input=asked, output=gave, tools=asked)
        with generation(model="m", input=asked) as made:
            asked[0]["content"][0]["text"] = "after"
            made.output = gave
            gave["deep"][0]["list"].append("added within")
        gave["deep"][0]["list"].clear()
    events = sink.wait_for(3)
    assert "after" not in str([event.properties for event in events])
    step_, recorded, block = events
    assert step_.properties["$ai_input_state"] == [{"content": [{"text": "before"}]}]
    assert step_.properties["$ai_output_state"] == {"deep": [{"list": ["before"]}]}
    assert step_.properties["p"] == {"nested": ["before"]}
    assert recorded.properties["$ai_output_choices"][0]["deep"] == [{"list": ["before"]}]
    assert block.properties["$ai_output_choices"][0]["deep"] == [
        {"list": ["before", "added within"]}
    ]


def test_nested_properties_are_those_of_the_call(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    """A request's handler that writes to one mapping for all would tell of another's user."""
    given: Any = {"user": {"name": "ann"}}
    client = OpenAI(base_url=provider.base_url, api_key="k", posthog_client=sink)
    messages: Any = [{"role": "user", "content": "hi"}]
    with posthog.new_context(), posthog_llm.context(properties={"around": given}):
        posthog.tag("tag", given)
        client.chat.completions.create(
            model="m",
            messages=messages,
            posthog_properties={"own": given},
            posthog_groups={"company": given},
        )
        given["user"]["name"] = "bob"
    (event,) = sink.wait_for(1)
    ann = {"user": {"name": "ann"}}
    assert [event.properties[name] for name in ("around", "tag", "own")] == [ann] * 3
    assert event.groups == {"company": ann}


def test_what_is_shared_or_cyclic_stays_so() -> None:
    shared: Any = {"n": 1}
    cycle: Any = [shared, shared]
    cycle.append(cycle)
    found = snapshot(cycle)
    assert found is not cycle
    assert found[0] is found[1] is not shared
    assert found[2] is found
    assert snapshot((1, "a")) == (1, "a")


def test_what_is_too_much_is_described() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    found, levels = snapshot(deep), 0
    while isinstance(found, list):
        found, levels = found[0], levels + 1
    assert (found, levels) == ("[list of 1 items, too much to keep]", 64)
    wide = snapshot({"many": [[n] for n in range(20_000)], "few": [[1]]})
    assert wide == {"many": "[list of 20000 items, too much to keep]", "few": [[1]]}
    many = snapshot([[[n]] for n in range(4_000)])
    assert many[1] == ["[list of 1 items, too much to keep]"]
    assert many[-1] == "[list of 1 items, too much to keep]"
    messages = [
        {"role": "user", "content": [{"type": "text", "text": str(n)}]} for n in range(1_000)
    ]
    assert snapshot(messages) == messages
    vector = [0.5] * 100_000
    assert snapshot(vector) == vector
    assert snapshot([0.5] * 10_000_000) == "[list of 10000000 items, too much to keep]"


@pytest.mark.parametrize(
    "make",
    [lambda: [[0.5]] * 9_000, lambda: [[n] for n in range(10**6)], lambda: [0] * 640_000],
)
def test_the_callers_thread_waits_a_bounded_time(make: Callable[[], Any]) -> None:
    value = make()
    before = time.thread_time()
    snapshot(value)
    assert time.thread_time() - before < 1.0


class Hostile(Exception):
    """Each part of it fails that anybody may ask for."""

    @property
    def __class__(self) -> Any:
        raise ValueError

    @property
    def exceptions(self) -> Any:
        raise ValueError

    __cause__ = __context__ = status_code = exceptions

    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


class HostileBase(BaseException):
    __class__ = exceptions = Hostile.exceptions
    __str__ = __repr__ = Hostile.__str__


class Liar(Exception):
    __class__ = dict  # type: ignore[assignment]
    exceptions = ()


@pytest.mark.parametrize("kind", [Hostile, HostileBase, Liar])
def test_hostile_exceptions_go_on_and_are_captured(sink: MemorySink, kind: Any) -> None:
    error = kind()
    for block in (span("s"), posthog_llm.trace("t"), generation(model="m")):
        caught: Any = None
        with posthog_llm.context(posthog_client=sink):
            try:
                with block:
                    raise error
            except BaseException as found:
                caught = found
        assert caught is error
    for event in sink.wait_for(3):
        assert event.properties.get("$ai_is_error", False) is issubclass(kind, Exception)
        if issubclass(kind, Exception):
            assert event.properties["posthog_llm_error"]["type"] == kind.__name__


def test_hostile_objects_in_steps_are_described(sink: MemorySink) -> None:
    class Odd:
        @property
        def __class__(self) -> Any:
            raise ValueError

        def __repr__(self) -> str:
            raise ValueError

    with posthog_llm.context(posthog_client=sink), span("s", input=[Odd()]) as step:
        step.output = {"x": Odd(), "error": Hostile()}
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_input_state"] == ["[Odd]"]
    assert event.properties["$ai_output_state"] == {"x": "[Odd]", "error": "[Hostile]"}


def test_closing_a_decorated_generator_returns_what_it_does() -> None:
    def items() -> Any:
        try:
            yield 1
        except GeneratorExit:
            return "the end"

    bare, ours = items(), posthog_llm.context(distinct_id="A")(items)()
    assert next(bare) == next(ours) == 1
    assert ours.close() == bare.close() == ("the end" if sys.version_info >= (3, 13) else None)


def test_no_line_of_python_runs_when_an_answer_goes() -> None:
    """An interrupt amid a weak reference's callback is printed and lost."""

    class Answer:
        pass

    answer, lines = Answer(), []
    before = len(event_ids._known)
    event_ids._note(answer, "an event")
    sys.setprofile(lambda frame, event, arg: lines.append(event) if event == "call" else None)
    del answer
    sys.setprofile(None)
    assert lines == []
    assert len(event_ids._known) == before


def fails(*_: Any) -> Any:
    raise ValueError("the program's own code")


KINDS: Any = [(str, "x"), (dict, {"a": 1}), (list, [1]), (int, 3), (float, 1.5), (tuple, (1,))]
METHODS = (
    *("__getattribute__", "__len__", "__bool__", "__iter__", "__getitem__", "__str__", "__repr__"),
    *("__eq__", "__contains__", "__format__", "items", "keys", "values", "get", "strip", "lower"),
)


@pytest.mark.parametrize("method", METHODS)
def test_a_subclass_of_a_plain_type_may_fail_at_anything(sink: MemorySink, method: str) -> None:
    """Whatever it is given as, the event is told, and no fault of ours counted."""
    odd = [type("Odd", (kind,), {method: fails})(value) for kind, value in KINDS]
    with posthog_llm.context(posthog_client=sink):
        for value in odd:
            given: Any = {"x": value, "deep": {"password": value, "headers": [value]}}
            with posthog_llm.context(properties=given), span("s", input=value) as step:
                step.output, step.properties["x"] = [value], value
            posthog_llm.capture_generation(
                model="m",
                input=[{"role": "user", "content": value}],
                output=value,
                tools=[{"name": value, "server_url": value}],
                parameters={"temperature": value, "stop": [value], "metadata": value},
                properties=given,
                groups={"company": value},
            )
    assert len(sink.wait_for(2 * len(odd))) == 2 * len(odd)
    text = type("Text", (str,), {method: fails})("ann")
    posthog_llm.capture_generation(model="m", posthog_client=sink, distinct_id=text, trace_id=text)
    last = sink.wait_for(2 * len(odd) + 1)[-1]
    assert (last.distinct_id, last.properties["$ai_trace_id"]) == ("ann", "ann")


class Unhashable(type):
    def __eq__(cls, other: object) -> bool:
        raise ValueError


class Odd(metaclass=Unhashable):
    pass


def test_a_class_without_a_hash(sink: MemorySink) -> None:
    odd = Odd()
    with posthog_llm.context(posthog_client=sink, properties={"mine": odd}):
        with posthog_llm.span("s", input={"odd": odd}) as one:
            one.output = [odd]
        posthog_llm.capture_generation(model="m", input=[odd])
    assert len(sink.wait_for(2)) == 2
