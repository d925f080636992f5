"""One trace through several services."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import posthog
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_llm import (
    context,
    continue_trace,
    span,
    trace,
    trace_headers,
)
from posthog_llm._context import NOTHING, current
from posthog_llm.testing import MemorySink

IDS = {
    "x-posthog-llm-trace-id": "trace_id",
    "x-posthog-llm-parent-id": "parent_id",
    "x-posthog-llm-session-id": "session_id",
    "x-posthog-distinct-id": "distinct_id",
}
SAMPLING = "x-posthog-llm-sampling"
MORE = [f"x-posthog-llm-{name}" for name in ("groups", "properties", "privacy")]


def test_there_and_back(sink: MemorySink) -> None:
    with (
        context(posthog_client=sink),
        trace("t", distinct_id="user-7", session_id="chat-1"),
        span("call") as s,
    ):
        sent = trace_headers()
    assert sent["x-posthog-llm-trace-id"] == s.trace_id
    assert sent["X-POSTHOG-DISTINCT-ID"] == "user-7"
    assert re.fullmatch(r"00-[\da-f]{32}-[\da-f]{16}-01", sent["traceparent"])
    assert sent["traceparent"].split("-")[1] == s.trace_id.replace("-", "")
    for form in (sent, list(sent.items()), [(k.encode(), v.encode()) for k, v in sent.items()]):
        with continue_trace(form):
            here = current()
            assert (here.trace_id, here.parent_id) == (s.trace_id, s.id)
            assert (here.session_id, here.distinct_id) == ("chat-1", "user-7")
            assert trace_headers() == sent


def test_groups_properties_and_privacy_there_and_back(sink: MemorySink) -> None:
    given = {"plan": "gold", "n": [1, {"é": None}], "$session_id": "replay", "odd": object()}
    with context(groups={"company": "acme"}, properties=given, privacy_mode=True), trace("t"):
        sent = trace_headers()
    assert all(re.fullmatch(r"[ -~]+", value) for value in sent.values())
    with context(posthog_client=sink), continue_trace(sent), span("s", input="secret"):
        assert trace_headers()["x-posthog-llm-privacy"] == "1"
    (event,) = sink.wait_for(1)
    assert event.groups == {"company": "acme"}
    assert event.properties["plan"] == "gold"
    assert event.properties["n"] == [1, {"é": None}]
    assert event.properties["$session_id"] == "replay"
    assert "odd" not in event.properties
    assert "$ai_input_state" not in event.properties
    assert event.properties["$ai_trace_id"] == sent["x-posthog-llm-trace-id"]


def test_a_private_parent_makes_private_children() -> None:
    with context(privacy_mode=True):
        sent = trace_headers()
    with continue_trace(sent), context(privacy_mode=False):
        assert current().privacy_mode is True


def test_what_is_too_long_for_a_header_is_left_out() -> None:
    given = {"long": "x" * 5000, "short": 1, "wide": list(range(10**5)), "mid": "y" * 3000}
    with context(properties=given, groups={"a": "b" * 2000, "c": "d"}):
        sent = trace_headers()
    assert json.loads(sent["x-posthog-llm-properties"]).keys() == {"short", "mid"}
    assert json.loads(sent["x-posthog-llm-groups"]) == {"c": "d"}
    many = {f"{number}": number for number in range(10**4)}
    with context(properties=many):
        assert len(trace_headers()["x-posthog-llm-properties"]) <= 4096


@pytest.mark.parametrize(
    "text",
    [
        *('{"$ai_total_cost_usd": 0}', "[1]", "1", "null", "{", '"text"', "{}", "[" * 4000),
        *('{"a\\nb": 1}', '{"deep": [[[[[1]]]]]}', '{"x": "' + "y" * 5000 + '"}'),
    ],
)
def test_hostile_properties(text: str) -> None:
    for name in ("x-posthog-llm-properties", "x-posthog-llm-groups"):
        with continue_trace({name: text}):
            assert (current().properties, current().groups) == (None, None)


def test_nothing_to_say() -> None:
    assert trace_headers() == {}
    with continue_trace({}):
        assert trace_headers() == {}


def test_posthogs_own_headers(sink: MemorySink) -> None:
    with (
        context(posthog_client=sink),
        continue_trace({"X-POSTHOG-SESSION-ID": "replay", "X-PostHog-Distinct-Id": "user-7"}),
        span("s"),
    ):
        assert trace_headers()["X-POSTHOG-SESSION-ID"] == "replay"
    (event,) = sink.wait_for(1)
    assert event.distinct_id == "user-7"
    assert event.properties["$session_id"] == "replay"


def test_traceparent_alone() -> None:
    one, two = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with continue_trace({"traceparent": f"00-{one}-{two}-01"}):
        assert (current().trace_id, current().parent_id) == (one, two)
    for odd in ("", "00", f"00-{'0' * 32}-{two}-01", f"zz-{one}-{two}-01", "x" * 1000):
        with continue_trace({"traceparent": odd}):
            assert current().trace_id is None


def test_what_fits_no_header_stays() -> None:
    with context(distinct_id="böse\r\nSet-Cookie: x", trace_id="a b"):
        sent = trace_headers()
    assert set(sent) == {"traceparent", "x-posthog-llm-sampling"}


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text() | st.binary() | st.none() | st.integers()))
def test_any_headers(found: dict[str, Any]) -> None:
    with continue_trace(found):
        for name, value in trace_headers().items():
            assert f"{name}{value}".isascii()
            assert value.isprintable()


def test_ids_that_are_numbers() -> None:
    """PostHog's own context, and properties, hold whatever they were given."""
    with (
        posthog.new_context(),
        context(session_id=3, properties={"$session_id": 9}),
        trace("t", trace_id=12),
    ):
        posthog.identify_context(7)  # type: ignore[arg-type]
        sent = trace_headers()
        assert sent["X-POSTHOG-DISTINCT-ID"] == "7"
        assert sent["X-POSTHOG-SESSION-ID"] == "9"
        assert sent["x-posthog-llm-session-id"] == "3"
        for odd in (True, 1.5, ["a"], object(), 10**5000, "x" * 201, uuid.UUID(int=1)):
            with context(properties={"$session_id": odd}):
                found = trace_headers().get("X-POSTHOG-SESSION-ID")
                assert found == (str(odd) if isinstance(odd, uuid.UUID) else None)


@pytest.mark.parametrize("name", [*IDS, "x-posthog-session-id"])
@pytest.mark.parametrize("odd", ["", " ", "\0", "a\tb", "a\x7fb", "\ud800", "\u2028", "x" * 201])
def test_what_is_no_id_is_absent(name: str, odd: str) -> None:
    with continue_trace({name: odd}):
        assert current() == NOTHING
        assert trace_headers() == {}


@pytest.mark.parametrize("name", IDS)
def test_ids_of_any_script(name: str) -> None:
    with continue_trace([(name, "Zo\xeb Müller")]):
        assert getattr(current(), IDS[name]) == "Zo\xeb Müller"
        assert not trace_headers().keys() - {"traceparent", "x-posthog-llm-sampling"}


ONE, TWO = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (f"00-{ONE}-{TWO}-01", True),
        (f"01-{ONE}-{TWO}-01", True),
        (f"01-{ONE}-{TWO}-01-more", True),
        (f"01-{ONE}-{TWO}-01more", False),
        (f"00-{ONE}-{TWO}-01-more", False),
        (f"ff-{ONE}-{TWO}-01", False),
        (f"00-{ONE.upper()}-{TWO}-01", False),
        (f"00-{ONE}-{'0' * 16}-01", False),
        (f"00-{chr(0x0661) * 32}-{TWO}-01", False),
        (f"00-{ONE}-{TWO}-01\n", False),
        (f"00-{ONE}-{TWO}-0", False),
    ],
)
def test_traceparent_as_w3c_has_it(value: str, is_one: bool) -> None:
    with continue_trace({"traceparent": value}):
        assert current().trace_id == (ONE if is_one else None)


def test_no_traceparent_of_zeros() -> None:
    for odd in (str(uuid.UUID(int=0)), "12345678-0000-0000-0000-000000000000"):
        with context(trace_id=odd):
            sent = trace_headers()
        with continue_trace({"traceparent": sent["traceparent"]}):
            assert current().trace_id is not None


@settings(deadline=None)
@given(st.data())
def test_hostile_headers(data: st.DataObject) -> None:
    """Whatever comes, nothing raises; what goes on is fit for a header, and comes back."""
    odd = st.text() | st.binary() | st.integers() | st.none() | st.text(max_size=300)
    value = (
        odd
        | st.dictionaries(st.text(), odd).map(str)
        | st.builds("00-{}-{}-01".format, st.text(max_size=40), st.text(max_size=20))
    )
    known = [*IDS, "x-posthog-session-id", "traceparent", SAMPLING, *MORE]
    names = st.sampled_from(known) | odd
    named = names | names.map(lambda name: name.encode() if name in IDS else name)
    pairs = st.lists(st.tuples(named, value) | odd)
    given_ = data.draw(pairs | st.dictionaries(named, value) | odd)
    with continue_trace(given_):
        sent = trace_headers()
        here = current()
    for name, recorded in sent.items():
        assert re.fullmatch(r"[!-~]{1,200}|\{[ -~]{1,4096}", recorded), name
    with continue_trace(sent):
        assert trace_headers().get(SAMPLING) == sent.get(SAMPLING)
        for name, field in IDS.items():
            if name in {sent_name.lower() for sent_name in sent}:
                assert getattr(current(), field) == getattr(here, field)
