"""Credentials inside escapes: JSON in JSON, percents, HTML, Base64; partly, in layers."""

from __future__ import annotations

import base64
import html
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthog_llm._privacy.cleaning import Cleaner
from posthog_llm._privacy.credentials import _searched, without_credentials
from posthog_llm._privacy.escapes import (
    _CUT,
    _PART,
    _parts,
    in_any_form,
    layers,
    without_escaped,
)
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver
from .growth import cpu_of, is_below
from .test_credentials import SIZES, STAY

HTTP: Any = next(sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules)
if openai.__version__ < "3":
    import httpx as HTTP
VALUE = "hunter2-Xy9"
SECRET = 'pl"um/tr<ee+9=wörd&x%41'


def in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def percent(text: str) -> str:
    return quote(text, safe="")


def every_percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def every_unit(text: str) -> str:
    return "".join(f"\\u{ord(char):04X}" for char in text)


def every_entity(text: str) -> str:
    return "".join(f"&#x{ord(char):x};" for char in text)


ENCODERS: list[Callable[[str], str]] = [
    *(in_json, percent, every_percent, every_unit, html.escape, every_entity),
    lambda text: "".join(f"&#{ord(char)};" for char in text),
    lambda text: in_json(text).replace("/", "\\/"),
]
ENCODED = {
    "JSON in JSON": in_json(f'{{"api_key": "{VALUE}"}}'),
    "JSON in JSON in JSON": in_json(in_json(f'{{"api_key": "{VALUE}"}}')),
    "percent": percent(f'{{"api_key": "{VALUE}"}}'),
    "percent twice": percent(percent(f"?api_key={VALUE}&x=1")),
    "percent thrice": percent(percent(percent(f'"password": "{VALUE}"'))),
    "partly": "https%3A//h.example/%3Fapi%5Fkey=hunter2%2DXy9",
    "HTML": html.escape(f'{{"api_key": "{VALUE}"}}'),
    "HTML in numbers": every_entity(f'"client_secret": "{VALUE}"'),
    "header in HTML": html.escape(f'"Authorization": "Bearer {VALUE}"'),
    "JSON, then percent": percent(in_json(f'{{"api_key": "{VALUE}"}}')),
    "HTML, then JSON": in_json(html.escape(f'{{"api_key": "{VALUE}"}}')),
    "user of a URL": percent(f"https://joe:{VALUE}@h.example/v1"),
    "by its look": every_percent("sk-Ab3dEf6hIj9lMn2pQr5tUv8xYz1BcD4f"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_a_credential_goes_by_its_name_inside_escapes(name: str) -> None:
    properties = without_credentials(f"Request failed: {ENCODED[name]} and more")
    assert "[redacted]" in properties
    assert properties.startswith("Request failed: ")
    for part in (VALUE, "hunter2", "%2DXy9", "Ab3dEf6h", every_percent("Ab3dEf6h")):
        assert part not in properties


@pytest.mark.parametrize("text", STAY)
def test_what_is_no_credential_stays_inside_escapes(text: str) -> None:
    for encode in ENCODERS:
        assert without_credentials(encode(text)) == _searched(encode(text))


@pytest.mark.parametrize("encode", ENCODERS)
def test_a_secret_is_found_in_place_in_any_form(encode: Callable[[str], str]) -> None:
    for form in (encode(SECRET), percent(encode(SECRET)), percent(percent(encode(SECRET)))):
        said = f"is {form} safe, 100% & \\ok?"
        assert Cleaner([SECRET]).text(said) == "is [redacted] safe, 100% & \\ok?"


@given(st.lists(st.sampled_from([str, *ENCODERS]), min_size=len(SECRET), max_size=len(SECRET)))
def test_a_secret_is_found_whatever_stands_for_each_character(
    forms: list[Callable[[str], str]],
) -> None:
    written = "".join(form(char) for form, char in zip(forms, SECRET, strict=True))
    assert without_escaped(f"a {written} b", [SECRET]) == "a [redacted] b" or written == SECRET


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=20),
    st.lists(st.sampled_from(ENCODERS), min_size=1, max_size=3),
)
def test_no_secret_passes_in_layers(secret: str, layers: list[Callable[[str], str]]) -> None:
    written = secret
    for encode in layers:
        written = encode(written)
    properties = Cleaner([secret]).content(f"a {written} b")
    assert written not in properties or written == "[redacted]" or written in "[redacted]"


@pytest.mark.parametrize("filler", ["\\u0061 ", "%61"], ids=["words", "one word"])
@pytest.mark.parametrize("encode", ENCODERS)
def test_no_cut_of_a_long_text_splits_a_secret(encode: Callable[[str], str], filler: str) -> None:
    secret = "plum/tree+9=wörd&x%41"
    written = encode(secret)
    for before in range(_PART - len(written), _PART + 2, 1 + len(written) // 8):
        text = (filler * (before // len(filler) + 1))[:before].rpartition(filler)[0]
        properties = without_escaped(f"{text}{filler}{written}{filler * 2}", [secret])
        assert not any(secret in layer for layer in (properties, *layers(properties)))


@given(st.lists(st.sampled_from(["a", "%61" * 9, " ", '"', "x" * 5_000, "b" * 40_000])))
def test_a_long_text_is_searched_in_parts(pieces: list[str]) -> None:
    """While a pattern sees one, no other thread runs."""
    parts = list(_parts("".join(pieces)))
    assert "".join(parts) == "".join(pieces)
    for part in parts:
        assert not _CUT.search(part, _PART), "it could have been cut sooner"


SLOW = ["a", "%25", "%", "\\", "\\\\u0061", "&amp;", "&#97;", "%2561", "a%", "\\a"]


@pytest.mark.parametrize("secret", ["a" * 40, "\\" * 20 + "a", "%25" * 12, "&amp;" * 8, SECRET])
@pytest.mark.parametrize("piece", SLOW)
def test_no_text_is_slow_to_search_for_a_secret(piece: str, secret: str) -> None:
    texts = [piece * (n // len(piece)) for n in SIZES]
    for search in (
        lambda text: without_escaped(text, [secret]),
        partial(in_any_form(secret).sub, ""),
    ):
        small, large = (partial(search, text) for text in texts)
        assert is_below(4 * (SIZES[1] / SIZES[0]) * cpu_of(small) + 0.02, large)


# -- what a request carried ------------------------------------------------------------------


class Signed(HTTP.Auth):
    def auth_flow(self, request: Any) -> Any:
        request.headers["x-sig-session"] = VALUE
        request.headers["authorization"] = "Basic " + base64.b64encode(b"joe:plum-tree-9").decode()
        yield request


@pytest.mark.parametrize("encode", ENCODERS)
def test_what_an_auth_flow_added_never_leaves(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, encode: Callable[[str], str]
) -> None:
    basic = base64.b64encode(b"joe:plum-tree-9").decode()
    secrets = [VALUE, "plum-tree-9", basic, basic.rstrip("=")]
    said = " and ".join(map(encode, secrets))
    provider.script("/chat/completions", Reply.json({"error": {"message": said}}, 400))
    kind = HTTP.AsyncClient if drive.prefix else HTTP.Client
    client = drive.ours(
        posthog_client=sink, http_client=kind(auth=Signed()), base_url=provider.base_url
    )
    with pytest.raises(openai.BadRequestError):
        drive.ask(client, messages=[{"role": "user", "content": said}])
    (event,) = sink.wait_for(1)
    assert provider.requests[-1].headers["x-sig-session"] == VALUE
    assert event.properties["$ai_input"][0]["content"] == " and ".join(["[redacted]"] * 4)
    properties = json.dumps(dict(event.properties), ensure_ascii=False)
    assert not [
        secret for secret in secrets for form in (str, encode) if form(secret) in properties
    ]
