"""Words in parameters, media types and base URLs: known ones alone pass privacy and redaction."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import posthog_llm
from posthog_llm._privacy import parameters
from posthog_llm._privacy.parameters import _OPEN, _PARTLY_OPEN
from posthog_llm._providers.hosts import Seen as SeenUrl
from posthog_llm._providers.hosts import bare_url, route_of
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver

ILL = "leukaemia"
KNOWN: dict[str, Any] = {
    "temperature": 0.5,
    "stream": False,
    "reasoning_effort": "xhigh",
    "verbosity": "low",
    "service_tier": "flex",
    "language": "pt-BR",
    "voice": "marin",
    "size": "1024x1536",
    "response_format": {"type": "json_schema"},
    "modalities": ["text", "audio"],
    "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
    "audio": {"voice": "alloy", "format": "pcm16"},
    "reasoning": {"effort": "none", "summary": "auto"},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"effort": "max"},
    "timestamp_granularities": ["word"],
    "prompt_cache_retention": "24h",
    "speed": 1.25,
}


@pytest.mark.parametrize("language", ["de", "yue", "zh-Hant-TW", "es-419", "en_US"])
def test_codes_of_languages_pass(language: str) -> None:
    assert parameters({"language": language}, private=True) == {"language": language}


@pytest.mark.parametrize("name", sorted(_OPEN))
def test_a_word_passes_privacy_in_no_parameter(name: str) -> None:
    for value in (ILL, [ILL], ["auto", ILL], (ILL,)):
        assert parameters({name: value}, private=True) == {}


@pytest.mark.parametrize("name", sorted(_PARTLY_OPEN))
def test_a_word_passes_privacy_in_no_field_of_a_parameter(name: str) -> None:
    assert parameters({name: dict.fromkeys(_PARTLY_OPEN[name], ILL)}, private=True) == {}


def test_what_is_documented_passes_privacy(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink, posthog_privacy_mode=True, posthog_redact=str.upper)
    drive.ask(client, extra_body=KNOWN)
    drive.ask(client, extra_body={name: ILL for name in KNOWN if name != "stream"})
    properties, hidden = (event.properties for event in sink.wait_for(2))
    shown = properties["$ai_model_parameters"]
    assert {name: shown[name] for name in KNOWN if name != "stream"}.keys() <= shown.keys()
    assert shown["language"] == "pt-BR"
    assert shown["voice"] == "marin"
    assert hidden["$ai_model_parameters"] == {}
    assert ILL not in json.dumps(dict(hidden))


def test_the_redactor_sees_a_word_that_is_not_documented(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink, posthog_redact=lambda text: text.replace(ILL, "***"))
    given = {"language": ILL, "voice": ILL, "include": [ILL, "usage"], "service_tier": "flex"}
    drive.ask(client, extra_body=given)
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_model_parameters"] == {
        "language": "***",
        "voice": "***",
        "include": ["***", "usage"],
        "service_tier": "flex",
    }


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        ("audio/mpeg", "audio/mpeg"),
        ("Audio/WAV; rate=24000", "audio/wav"),
        (f"audio/{ILL}", "audio"),
        (f"audio/mpeg; said={ILL}", "audio/mpeg"),
        (f"application/octet-stream, {ILL}", "audio"),
    ],
)
def test_sound_is_captured_by_a_known_type(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, kind: str, properties: str
) -> None:
    provider.script("/audio/speech", Reply([b"sound"], headers={"content-type": kind}))
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.audio.speech.create(model="m", voice="alloy", input="hi"))
    (event,) = sink.wait_for(1)
    block = {"type": "audio", "data": f"[{properties}, 5 bytes]"}
    assert event.properties["$ai_output_choices"] == [{"role": "assistant", "content": [block]}]


# -- base URLs -------------------------------------------------------------------------------

PASSWORD = "hunter2-Xy9"


@pytest.mark.parametrize(
    ("url", "properties"),
    [
        (f"https://user:{PASSWORD}@h.example:8080/v1?key=x#y", "https://h.example:8080/v1"),
        (f"http://user:{PASSWORD}@[::1]:80/v1", "http://[::1]:80/v1"),
        ("https://h.example/v1/models/claude@2024", "https://h.example/v1/models/claude@2024"),
        (f"https://user:{PASSWORD}/more@h.example/v1", None),
        (f"https://user:12/{PASSWORD}@h.example/v1", None),
        (f"https://user:{PASSWORD}", None),
        (f"https://user%3A{PASSWORD}%40h.example/v1", None),
        (f"https://[user:{PASSWORD}@h.example/v1", None),
        (f"https://user {PASSWORD}/v1", None),
        ("https://h.example:abc/v1", None),
        (f"user:{PASSWORD}@h.example/v1", None),
        ("", None),
    ],
)
def test_a_base_url_is_captured_without_what_is_nobodys(url: str, properties: str | None) -> None:
    assert bare_url(url) == properties


PIECES = ["http://", "https:", "//", "/", "@", ":", "[", "]", "?", "#", " ", "%", "h.example", "80"]


@given(st.lists(st.sampled_from([*PIECES, "\\", "\t", "\u2100", "é", "::1"]), max_size=12))
def test_no_url_raises(pieces: list[str]) -> None:
    url = "".join(pieces)
    bare_url(url)
    route_of(SeenUrl(url))


@given(st.text(max_size=6), st.text(max_size=6))
def test_no_password_leaves_in_front_of_a_host(before: str, after: str) -> None:
    if not set(before + after) & set("/?#\\"):
        assert "hunter2" not in str(bare_url(f"https://{before}hunter2{after}@h.example/v1"))


def test_a_malformed_url_costs_no_event(sink: MemorySink) -> None:
    url = f"https://user:{PASSWORD}/x@h.example/v1"
    posthog_llm.capture_generation(model="m", input="hi", base_url=url, posthog_client=sink)
    (event,) = sink.wait_for(1)
    assert "$ai_base_url" not in event.properties
    assert PASSWORD not in json.dumps(dict(event.properties))
