"""The fast JSON parser and the standard one read the same, and nothing depends on the fast one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from posthog_llm._delivery.trimming import weigh
from posthog_llm._providers.parsing import parse, without_vectors
from posthog_llm._weighing import size_of_plain, sizes_of_json
from posthog_llm.testing import MemorySink

from .driving import QUESTION, Driver

FUZZED = settings(deadline=None)
WITHOUT = {"jiter": None}
TEXTS = st.text() | st.text(st.characters(codec="ascii")) | st.sampled_from(["\ud800", "\0", "é🎉"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)
NUMBERS = st.from_regex(r"-?[0-9]{0,25}\.?[0-9]{0,25}([eE][+-]?[0-9]{0,4})?", fullmatch=True)
WRITTEN = st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only), VALUES, st.booleans()
)


def assert_both_read_the_same(data: bytes) -> None:
    with patch.dict(sys.modules, WITHOUT):
        standard = parse(data)
    assert repr(parse(data)) == repr(standard)  # `nan` is not equal to itself


@FUZZED
@given(WRITTEN)
def test_both_read_what_json_writes(text: str) -> None:
    assert_both_read_the_same(text.encode("utf-8", "surrogatepass"))


@FUZZED
@given(WRITTEN, st.integers(0), st.binary(max_size=3))
def test_both_read_what_is_broken_somewhere(text: str, place: int, put: bytes) -> None:
    data = text.encode("utf-8", "surrogatepass")
    at = place % (len(data) + 1)
    assert_both_read_the_same(data[:at] + put + data[at + 1 :])


@FUZZED
@given(NUMBERS)
@example("1" * 4300)
@example("1" * 4301)
@example("-0")
@example("1e400")
@example("5e-324")
def test_both_read_numbers(number: str) -> None:
    assert_both_read_the_same(b"[%b]" % number.encode())


@pytest.mark.parametrize(
    "data",
    [
        *(b'{"a":1,"b":2,"a":3}', b"\xef\xbb\xbf{}", b'"\xed\xa0\x80"', b'"\xff"', b'"\xc0\x80"'),
        *(b'"\\ud83d\\ude00"', b'"\\ud800"', b'"a\x01b"', b"[NaN, -Infinity]", b"{} x", b" ", b""),
        *(b"[" * n + b"]" * n for n in (150, 250, 100_000)),
        *(b'{"a":' * n + b"1" + b"}" * n for n in (150, 250)),
    ],
    ids=lambda data: str(data[:20]),
)
def test_both_read_what_few_servers_send(data: bytes) -> None:
    assert_both_read_the_same(data)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_events_are_the_same_without_the_fast_parser(
    drive: Driver, sink: MemorySink, stream: bool
) -> None:
    client = drive.ours(posthog_client=sink)

    def ask() -> Any:
        return client.chat.completions.create(**QUESTION, stream=stream)

    found: list[Any] = []
    for modules in ({}, WITHOUT):
        with patch.dict(sys.modules, modules):
            (drive.collect if stream else drive.call)(ask)
            own = dict(sink.wait_for(len(found) + 1)[-1].properties)
        varying = ("id", "latency", "time_to_first_token", "_ms")
        found.append({k: v for k, v in own.items() if not k.endswith(varying)})
    assert found[0] == found[1]


def test_the_fast_parser_is_imported_with_the_client() -> None:
    code = (
        "import sys, posthog, posthog_llm.openai as ours\n"
        "ours.OpenAI(api_key='k', posthog_client=posthog.Posthog('phc_x', send=False))\n"
        "assert 'jiter' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@FUZZED
@given(VALUES | st.lists(st.tuples(VALUES)))
def test_length_is_that_of_the_json(value: Any) -> None:
    assert weigh(value) == len(json.dumps(value))


@FUZZED
@given(PLAIN)
def test_memory_is_measured_alike(value: Any) -> None:
    assert sizes_of_json(value)[0] == size_of_plain(value)


@FUZZED
@given(st.text(), st.text(st.characters(codec="ascii")))
@example("\x7f\x00\n", 'a"\\\t\r\b\f')
def test_length_of_a_long_text_is_that_of_its_json(some: str, plain: str) -> None:
    for text in ((some or "a") * 70_000)[:200_000], ((plain or "a") * 70_000)[:200_000]:
        assert sizes_of_json({text: [text]})[1] == len(json.dumps({text: [text]}))


def test_what_json_cannot_show_is_weighed_as_its_text() -> None:
    assert weigh([object, {1: 2}]) == len(json.dumps([object, {1: 2}], default=str))


FIELDS = st.dictionaries(st.sampled_from(["object", "model", "id", "created", "usage"]), VALUES)
VECTORS = st.lists(
    st.fixed_dictionaries({"index": st.integers(), "embedding": st.lists(st.floats()) | TEXTS})
    | VALUES
)


def assert_all_but_vectors_is_read(data: bytes) -> None:
    whole, rest = parse(data), parse(without_vectors(data))
    if isinstance(whole, dict) and isinstance(rest, dict):
        whole.pop("data", None)
        rest.pop("data", None)
    assert repr(rest) == repr(whole)


@FUZZED
@given(FIELDS, VECTORS, FIELDS, st.none() | st.integers(0, 4), st.integers(0), st.binary())
@example({"model": '"data":['}, [{"a": '}],"model":"b"}'}], {}, None, 0, b"")
@example({'"data': [{}]}, [{"a": {}}], {"usage": {}}, None, 0, b"")
@example({"usage": {"data": [{}]}}, [{}], {"data": [{}], "model": "m"}, 1, 40, b"}")
def test_embeddings_are_read_but_for_their_vectors(
    before: Any, vectors: Any, after: Any, indent: Any, place: int, put: bytes
) -> None:
    data = json.dumps({**before, "data": vectors, **after}, indent=indent).encode()
    assert_all_but_vectors_is_read(data)
    at = place % len(data)
    assert_all_but_vectors_is_read(data[:at] + put + data[at + 1 :])


@pytest.mark.parametrize("vector", ["AAAA" * 2048, [0.25, -1e-7] * 700], ids=["base64", "floats"])
def test_a_response_of_embeddings_is_parsed_one_at_a_time(vector: Any) -> None:
    data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(300)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    body = {"object": "list", "data": data, "model": "m", "usage": usage}
    for indent in (None, 2):
        found = without_vectors(json.dumps(body, indent=indent).encode())
        assert len(found) < 200
        assert json.loads(found) == {**body, "data": []}
