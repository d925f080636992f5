"""What the caller's redactor sees, and what happens to values that no walk would end."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections import UserDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import posthog
import pydantic
import pytest

import posthog_llm
from posthog_llm import span, trace
from posthog_llm._privacy import cleaning
from posthog_llm._privacy.cleaning import Cleaner
from posthog_llm.testing import MemorySink, PostHogReceiver, Reply, ScriptedProvider

from .driving import Driver, every_provider, every_sdk, failure_of, saying

SECRET = "Jane-Doe-77"
FREE = {
    "id": SECRET,
    "type": SECRET,
    "status": SECRET,
    "detail": SECRET,
    "format": SECRET,
    "role": SECRET,
    "deep": [{"index": 1, "finish_reason": SECRET}],
    SECRET: 1,
}


def hide(text: str) -> str:
    return text.replace(SECRET, "***")


HIDDEN = json.loads(json.dumps(FREE).replace(SECRET, "***"))


def test_tool_calls_results_and_schemas_have_no_structure(drive: Driver, sink: MemorySink) -> None:
    call = {"name": "find", "arguments": json.dumps(FREE)}
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {**FREE, "type": "mine"}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(FREE)},
    ]
    tool = {"name": "find", "parameters": {"type": "object", "properties": FREE}}
    client = drive.ours(posthog_client=sink, posthog_redact=hide)
    drive.ask(
        client,
        messages=messages,
        tools=[{"type": "function", "function": tool}],
        metadata={SECRET: SECRET},
    )
    (event,) = sink.wait_for(1)
    assert SECRET not in json.dumps(dict(event.properties))
    user, assistant, answer = event.properties["$ai_input"]
    assert user["content"] == [{"type": "text", "text": "hi"}, {**HIDDEN, "type": "mine"}]
    properties = {**call, "arguments": json.dumps(HIDDEN)}
    assert assistant["tool_calls"] == [{"id": "call_1", "type": "function", "function": properties}]
    assert answer == {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(HIDDEN)}
    (shown,) = event.properties["$ai_tools"]
    assert shown["function"]["parameters"] == {"type": "object", "properties": HIDDEN}
    assert event.properties["$ai_model_parameters"]["metadata"] == {"***": "***"}


@pytest.mark.parametrize("drive", ["Anthropic sync"], indirect=True)
def test_input_of_a_messages_tool_has_no_structure(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": FREE}
    said = {"type": "message", "id": "msg_1", "role": "assistant", "model": "m", "content": [use]}
    usage = {"input_tokens": 1, "output_tokens": 1}
    provider.script("/messages", Reply.json({**said, "stop_reason": "tool_use", "usage": usage}))
    client = drive.ours(posthog_client=sink, posthog_redact=hide)
    result = {"type": "tool_result", "tool_use_id": "toolu_0", "content": [{**FREE, "type": "x"}]}
    tool = {"name": "find", "input_schema": {"type": "object", "properties": FREE}}
    drive.ask(client, messages=[{"role": "user", "content": [result]}], tools=[tool])
    (event,) = sink.wait_for(1)
    assert SECRET not in json.dumps(dict(event.properties))
    (properties,) = event.properties["$ai_output_choices"][0]["content"]
    function = {"name": "find", "arguments": HIDDEN}
    assert properties == {"type": "function", "id": "toolu_1", "function": function}
    (asked,) = event.properties["$ai_input"][0]["content"]
    assert asked == {**result, "content": [{**HIDDEN, "type": "x"}]}


def test_a_redactor_that_drops_everything_leaves_a_conversation(
    drive: Driver, sink: MemorySink
) -> None:
    client = drive.ours(posthog_client=sink, posthog_redact=lambda text: None)
    drive.ask(client, messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}])
    (event,) = sink.wait_for(1)
    withheld = [{"type": "text", "text": "[withheld]"}]
    assert event.properties["$ai_input"] == [{"role": "user", "content": withheld}]
    assert event.properties["$ai_output_choices"] == saying("[withheld]")
    assert event.properties["$ai_model"] == "m"


def test_a_field_of_the_protocol_is_spared_only_with_a_word_of_the_protocol() -> None:
    properties = Cleaner(redact=lambda text: "*").content(
        [
            {"role": "user", "id": "msg_1", "status": "completed", "content": "hi"},
            {"role": "user", "id": "Jane Doe", "status": "she is ill", "content": "hi"},
            {"role": "Jane Doe", "content": "hi"},
        ]
    )
    assert properties == [
        {"role": "user", "id": "msg_1", "status": "completed", "content": "*"},
        {"role": "user", "id": "*", "status": "*", "content": "*"},
        {"*": "*", "* (2)": "*"},
    ]


def test_keys_that_become_the_same_lose_nothing() -> None:
    drop = Cleaner(redact=lambda text: None)
    assert drop.free({"a": 1, "b": 2, "c": 3}) == {
        "[withheld]": 1,
        "[withheld] (2)": 2,
        "[withheld] (3)": 3,
    }
    assert drop.free({"a": 1, "[withheld] (2)": 2}) == {"[withheld]": 1, "[withheld] (2)": 2}
    assert Cleaner().plain({1: "number", "1": "text"}) == {"1": "number", "1 (2)": "text"}


def test_steps_pass_the_redactor_whole_and_properties_stay_the_callers() -> None:
    cleaner = Cleaner(redact=hide)
    assert cleaner.free(FREE) == HIDDEN
    assert cleaner.plain(FREE) == FREE


# -- steps, and calls told by hand -------------------------------------------------------


@pytest.fixture
def unconfigured() -> Iterator[None]:
    yield
    posthog_llm.configure(redact=None, posthog_client=None)


def steps(ask: Any) -> None:
    """A program whose every part names the secret, around one call."""
    with trace("around", input=SECRET) as outer:
        with trace("t", input={"q": [SECRET]}) as t:
            with span("before", input=SECRET, type="tool") as before:
                before.output = [{SECRET: SECRET}]
            ask()
            posthog_llm.capture_generation(model="m", input=SECRET, output=[SECRET])
            with pytest.raises(KeyError), span("after", input=FREE):
                raise KeyError(SECRET)
            t.output = SECRET
        outer.output = SECRET


def hidden(sink: MemorySink, count: int = 6) -> dict[str, Any]:
    """Return the events by name, none of which may name the secret."""
    events = sink.wait_for(count)
    assert SECRET not in json.dumps([dict(event.properties) for event in events])
    return {event.properties.get("$ai_span_name", event.event): event for event in events}


@pytest.mark.parametrize("named", ["by the client", "by configure", "by the trace"])
def test_steps_around_a_call_pass_the_redactor_of_its_client(
    drive: Driver, sink: MemorySink, named: str, unconfigured: None
) -> None:
    """Also those that end before it, and where their destination is known at once."""
    client = drive.ours(posthog_client=sink, posthog_redact=hide)
    if named == "by configure":
        posthog_llm.configure(posthog_client=sink)
    with posthog_llm.context(posthog_client=sink if named == "by the trace" else None):
        steps(lambda: drive.ask(client))
    found = hidden(sink)
    assert found["before"].properties["$ai_input_state"] == "***"
    assert found["before"].properties["$ai_output_state"] == [{"***": "***"}]
    assert found["after"].properties["$ai_input_state"] == HIDDEN
    assert failure_of(found["after"].properties) == {"type": "KeyError", "message": "'***'"}
    assert found["t"].properties["$ai_input_state"] == {"q": ["***"]}
    assert found["around"].properties["$ai_output_state"] == "***"


def test_the_first_client_with_a_redactor_counts(drive: Driver, sink: MemorySink) -> None:
    plain, careful = drive.ours(posthog_client=sink), drive.ours(posthog_redact=hide)
    with trace("t", input=SECRET):
        drive.ask(plain)
        drive.ask(careful, posthog_client=sink)
    assert hidden(sink, 3)["t"].properties["$ai_input_state"] == "***"


def test_steps_wait_for_a_redactor_behind_a_call_without_one(
    drive: Driver, sink: MemorySink
) -> None:
    careful, plain = drive.ours(posthog_redact=hide), drive.ours(posthog_client=sink)
    with trace("t", input=SECRET):
        drive.ask(plain)
        with span("between", input=SECRET):
            pass
        drive.ask(careful, posthog_client=sink)
    assert hidden(sink, 4)["between"].properties["$ai_input_state"] == "***"


def test_steps_that_wait_for_a_redactor_are_flushed_to_their_trace(
    drive: Driver, sink: MemorySink
) -> None:
    drive.ours(posthog_redact=hide)
    with trace("t"):
        drive.ask(drive.ours(posthog_client=sink))
        with contextlib.suppress(KeyError), span("s", input=SECRET):
            raise KeyError(SECRET)
        assert posthog_llm.flush(10)
        assert [event.event for event in sink._events] == ["$ai_generation", "$ai_span"]
        step = sink._events[1].properties
        assert SECRET not in json.dumps(dict(step))  # a call with a redactor may come
        assert failure_of(step) == {"message": "KeyError", "type": "KeyError"}


def test_steps_flushed_behind_a_call_that_is_not_captured_pass_its_redactor(
    drive: Driver, sink: MemorySink, unconfigured: None
) -> None:
    careful = drive.ours(posthog_redact=hide)
    with trace("t"):
        drive.ask(careful, posthog_capture=False)
        with span("s", input=SECRET):
            pass
        posthog_llm.configure(posthog_client=sink)
        assert posthog_llm.flush(10)
    assert hidden(sink, 2)["s"].properties["$ai_input_state"] == "***"


def test_a_call_that_is_not_captured_brings_its_redactor(drive: Driver, sink: MemorySink) -> None:
    careful = drive.ours(posthog_redact=hide)
    with trace("t", input=SECRET, posthog_client=sink):
        with span("before", input=SECRET):
            pass
        drive.ask(careful, posthog_capture=False)
    found = hidden(sink, 2)
    assert found["before"].properties["$ai_input_state"] == "***"
    assert found["t"].properties["$ai_input_state"] == "***"


def test_a_step_that_can_wait_no_longer_leaves_without_its_content(
    drive: Driver, sink: MemorySink
) -> None:
    careful = drive.ours(posthog_redact=hide)
    with trace("t", posthog_client=sink):
        with contextlib.suppress(KeyError), span("large", input=[SECRET] * 300_000):
            raise KeyError(SECRET)
        with span("small", input=SECRET):
            pass
        drive.ask(careful)
    found = hidden(sink, 4)
    assert "$ai_input_state" not in found["large"].properties
    assert failure_of(found["large"].properties) == {"message": "KeyError", "type": "KeyError"}
    assert found["small"].properties["$ai_input_state"] == "***"


def test_the_text_of_a_metric_passes_the_redactor(sink: MemorySink, unconfigured: None) -> None:
    posthog_llm.configure(redact=hide, posthog_client=sink)
    posthog_llm.capture_metric("t", "note", f"by {SECRET}")
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_metric_value"] == "by ***"


def test_configure_redacts_what_no_client_sees(
    drive: Driver, sink: MemorySink, unconfigured: None
) -> None:
    posthog_llm.configure(redact=hide, posthog_client=sink)
    client = drive.ours()
    steps(lambda: drive.ask(client, messages=[{"role": "user", "content": SECRET}]))
    with posthog_llm.generation(model="m", input=[SECRET]) as g:
        g.output = SECRET
    posthog_llm.capture_feedback("t", SECRET)
    with span("alone", input=SECRET):
        pass
    posthog_llm.flush(10)
    found = hidden(sink, 9)
    assert found["$ai_feedback"].properties["$ai_feedback_text"] == "***"
    assert found["alone"].properties["$ai_input_state"] == "***"


def test_a_clients_redactor_comes_before_the_configured_one(
    drive: Driver, sink: MemorySink, unconfigured: None
) -> None:
    posthog_llm.configure(redact=lambda text: "configured")
    client = drive.ours(posthog_client=sink, posthog_redact=lambda text: "the client's")
    with trace("t", input="a b"):
        drive.ask(client)
    call, step = sink.wait_for(2)
    assert call.properties["$ai_input"] == [{"role": "user", "content": "the client's"}]
    assert step.properties["$ai_input_state"] == "the client's"


def test_a_configured_redactor_that_fails_withholds_the_content(
    sink: MemorySink, unconfigured: None
) -> None:
    posthog_llm.configure(redact=lambda text: 1 / 0)  # type: ignore[arg-type,return-value]
    with span("s", input=SECRET), posthog_llm.context(posthog_client=sink):
        posthog_llm.capture_generation(model="m", input=SECRET)
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_content_withheld"] == "ZeroDivisionError"
    assert "$ai_input" not in event.properties


# -- values without end ----------------------------------------------------------------


def linked(count: int = 10) -> list[Any]:
    """Lists that each name all others, and themselves."""
    nodes: list[Any] = [[] for _ in range(count)]
    for node in nodes:
        node.extend(nodes)
    return nodes


def nested(depth: int = 24) -> Any:
    """A value of `depth` containers that has two to the power of `depth` paths."""
    value: Any = {"leaf": "x"}
    for _ in range(depth):
        value = {"a": value, "b": value}
    return value


class Model(pydantic.BaseModel):
    left: Any
    right: Any


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


class Endless(UserDict[str, Any]):
    def items(self) -> Any:
        return ((str(n), n) for n in itertools.count())


class EndlessList(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return itertools.count()


def doubled(make: Any, depth: int = 40) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = make(left=value, right=value)
    return value


ENDLESS = {
    "linked": linked,
    "nested": nested,
    "models": lambda: doubled(Model),
    "dataclasses": lambda: doubled(Pair),
    "mapping": lambda: Endless({"a": 1}),
    "list": lambda: EndlessList([1]),
    "one text in many places": lambda: [["x" * 100_000] * 100] * 500,
    "many numbers": lambda: [list(range(10_000))] * 10_000,
}


@pytest.mark.parametrize("make", ENDLESS.values(), ids=ENDLESS)
def test_a_value_without_end_becomes_a_bounded_one(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "_MOST_NODES", 5_000)
    monkeypatch.setattr(cleaning, "_MOST_CHARACTERS", 1 << 20)
    cleaner = Cleaner()
    properties = json.dumps(cleaner.free(make()))
    assert "[too much to show]" in properties
    assert len(properties) < 2 << 20
    assert cleaner.cut > 0


def test_a_value_that_takes_its_time_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(cleaning, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    properties = Cleaner().free([[n] for n in range(1000)])
    assert properties[0] == [0]
    assert properties[-1] == "[too much to show]"


def test_a_slow_redactor_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(cleaning, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(text: str) -> str:
        now[0] += 60
        return text

    assert Cleaner(redact=slow).free([["a"], ["b"]]) == [["a"], ["b"]]


@pytest.mark.parametrize("make", [linked, nested], ids=["linked", "nested"])
def test_other_events_are_delivered_beside_a_value_without_end(sink: MemorySink, make: Any) -> None:
    value = make()
    with posthog_llm.context(posthog_client=sink):
        with span("input", input=value) as one:
            one.properties["mine"] = value
            one.output = value
        with span("after"):
            pass
    first, after = sink.wait_for(2)
    assert first.properties["posthog_llm_content_cut_bytes"] > 0
    assert "[too much to show]" in json.dumps(first.properties["$ai_input_state"])
    assert after.properties["$ai_span_name"] == "after"
    assert posthog_llm.flush(10)


class Failing:
    """An object all of whose own methods fail."""

    __slots__ = ()

    def _fail(self, *args: Any) -> Any:
        raise ValueError(SECRET)

    __str__ = __repr__ = __iter__ = __len__ = model_dump = items = _fail


class FailingMapping(UserDict[str, Any]):
    def items(self) -> Any:
        yield "a", 1
        raise ValueError(SECRET)


HOSTILE = {
    "fails": (Failing, "[Failing]"),
    "fails as a mapping": (FailingMapping, "[FailingMapping]"),
    "enormous number": (lambda: 10**5000, "[integer, 16610 bits]"),
    "enormous key": (lambda: {10**5000: 1}, {"[int]": 1}),
    "not a number": (lambda: float("nan"), "nan"),
    "deep": (lambda: json.loads("[" * 900 + "]" * 900), None),
    "long text of its own": (lambda: type("Big", (), {"__str__": lambda s: "x" * 10**6})(), None),
}


@pytest.mark.parametrize(("make", "properties"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_value_harms_nothing_beside_it(
    sink: MemorySink, make: Any, properties: Any
) -> None:
    with posthog_llm.context(posthog_client=sink), span("s", input=[make(), "kept"]) as one:
        one.properties["mine"] = make()
    (event,) = sink.wait_for(1)
    shown, kept = event.properties["$ai_input_state"]
    assert kept == "kept"
    assert len(json.dumps(dict(event.properties))) < 800_000
    if properties is not None:
        assert shown == properties == event.properties["mine"]


def test_a_thread_that_is_deep_down_already_still_tells() -> None:
    deep: Any = "x"
    for _ in range(60):
        deep = [deep]

    def at_depth(left: int) -> Any:
        return at_depth(left - 1) if left else Cleaner().free({"kept": 1, "deep": deep})

    found = [at_depth_of(at_depth, left) for left in range(700, 1000, 20)]
    assert any("[nested too deep]" in json.dumps(properties) for properties in found)
    assert all(properties is None or properties["kept"] == 1 for properties in found)


def at_depth_of(run: Any, left: int) -> Any:
    try:
        return run(left)
    except RecursionError:
        return None  # there was no room for the cleaner itself


@every_sdk
def test_a_mapping_of_the_callers_that_never_ends_costs_its_own_call_nothing(
    drive: Driver, sink: MemorySink
) -> None:
    drive.ask(drive.ours(posthog_client=sink), posthog_properties={"mine": nested()})
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_input"]
    assert "[too much to show]" in json.dumps(event.properties["mine"])


def test_what_before_capture_adds_is_made_fit_to_leave(receiver: PostHogReceiver) -> None:
    def add(event: dict[str, Any]) -> dict[str, Any]:
        event["properties"].update(number=10**5000, linked=linked(2), object=Failing())
        return event

    posthog_llm.configure(before_capture=add)
    destination = posthog.Posthog("phc_test", host=receiver.url)
    try:
        with posthog_llm.context(posthog_client=destination), span("s"):
            pass
        destination.flush()
    finally:
        posthog_llm.configure(before_capture=None)
    (event,) = receiver.wait_for(1)
    assert event["properties"]["number"] == "[integer, 16610 bits]"
    assert event["properties"]["linked"] == [
        ["[circular]", ["[circular]", "[circular]"]],
        [["[circular]", "[circular]"], "[circular]"],
    ]
    assert event["properties"]["object"] == "[Failing]"


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError(SECRET)


def test_an_exception_that_cannot_be_shown_is_captured_by_its_class(sink: MemorySink) -> None:
    with posthog_llm.context(posthog_client=sink), pytest.raises(Mute), span("s"):
        raise Mute
    (event,) = sink.wait_for(1)
    assert failure_of(event.properties) == {"message": "Mute", "type": "Mute"}


@every_provider
def test_a_request_that_is_nested_deep_is_still_captured(drive: Driver, sink: MemorySink) -> None:
    deep = json.loads("[" * 300 + "]" * 300)
    drive.ask(drive.ours(posthog_client=sink), messages=[{"role": "user", "content": deep}])
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_requested_model"] == "m"
    assert "[nested too deep]" in json.dumps(event.properties["$ai_input"])


# -- descriptions of media, and names of fields ------------------------------------------

KEY = "sk-live-9f8e7d6c5b4a3210"


@pytest.mark.parametrize("kind", [KEY, f"text/{KEY}", SECRET, f"image/{SECRET}"])
def test_only_a_known_media_type_passes_by_redactor_and_credentials(kind: str) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "QUJD", "format": kind}}
    parts = [{"type": "text", "text": f"data:{kind};base64,AAAA"}, sound]
    cleaner = Cleaner([KEY], hide)
    properties = cleaner.content([{"role": "user", "content": parts}])
    assert KEY not in json.dumps(properties)
    assert SECRET not in json.dumps(properties)
    assert properties[0]["content"][1]["input_audio"]["data"] == "[binary, 3 bytes]"


def test_text_beside_a_format_is_no_media() -> None:
    export = {"data": "Hello", "format": "csv", "cookie": "chocolate chip", "password": "n/a"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "save", "input": export}
    cleaner = Cleaner()
    assert cleaner.content([{"role": "assistant", "content": [use]}])[0]["content"] == [use]
    assert cleaner.free({"export": export}) == {"export": export}
    text = {"type": "input_audio", "input_audio": {"data": "hello world", "format": "wav"}}
    assert cleaner.content([{"role": "user", "content": [text]}])[0]["content"] == [text]


def test_properties_are_left_alone() -> None:
    mine = {
        "export": {"data": "QUJD", "format": "csv", "encrypted_content": "abcd"},
        "cookie": "chocolate chip",
        "uri": "data:text/plain;base64,aGVsbG8=",
        "tool": {"server_url": "http://a/b?c=d", "headers": {"a": "b"}},
    }
    assert Cleaner().plain(mine) == mine


def test_names_mean_credentials_in_parameters_and_in_what_a_provider_says() -> None:
    said = {"password": "hunter2", "note": "x"}
    hidden = {"password": "[redacted]", "note": "x"}
    assert Cleaner().parameter("metadata", said) == hidden
    assert Cleaner().provider(said) == hidden


def test_texts_in_parameters_of_words_pass_the_redactor(drive: Driver, sink: MemorySink) -> None:
    given = {
        "voice": f"{SECRET} is ill",
        "language": f"{SECRET} ",
        "style": {"password": "hunter2"},
    }
    client = drive.ours(posthog_client=sink, posthog_redact=hide)
    drive.ask(client, temperature=0.5, reasoning_effort="low", extra_body=given)
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_model_parameters"] == {
        "temperature": 0.5,
        "reasoning_effort": "low",
        "voice": "*** is ill",
        "language": "*** ",
        "style": {"password": "[redacted]"},
    }


@pytest.mark.parametrize("at", [0, (256 << 10) - 5, 300_000, 600_000 - 14])
def test_a_credential_is_found_anywhere_in_a_long_text(at: int) -> None:
    secret = "sk-0123456789x"
    text = "a" * at + secret + "b" * (600_000 - at - len(secret))
    assert Cleaner([secret]).content(text) == text.replace(secret, "[redacted]")
