"""Credentials in what providers and exceptions say: which texts must go, and which must stay."""

from __future__ import annotations

import base64
import json
import sys
from functools import partial
from typing import Any
from urllib.parse import quote

import openai
import pytest

from posthog_llm._privacy.credentials import address_without_credentials, without_credentials
from posthog_llm.testing import CapturedEvent, MemorySink, Reply, ScriptedProvider

from .driving import Driver, every_provider, saying
from .growth import cpu_of, is_below

HTTP: Any = next(sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules)
if openai.__version__ < "3":
    import httpx as HTTP
# No scanner of sources may take these for real ones, so none is written in one piece.
HEX = "0123456789abcdef0123456789abcdef"
MIXED = "Ab3dEf6hIj9lMn2pQr5tUv8xYz1BcD4f"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"
BY_LOOK = [
    *(f"sk-{MIXED}", f"sk-proj-{MIXED}", f"sk-ant-api03-{MIXED}", f"sk-or-v1-{HEX}"),
    *(f"ghp_{MIXED}", f"gho_{MIXED}", f"ghs_{MIXED}", f"github_pat_11{MIXED}", f"glpat-{MIXED}"),
    *(f"xoxb-123456789012-{MIXED}", f"xoxp-123456789012-{MIXED}", f"xapp-1-A1-{MIXED}"),
    *(f"nvapi-{MIXED}", f"whsec_{MIXED}", f"ya29.{MIXED}", f"AQ.{MIXED}", f"AIza{MIXED}"),
    *("AKIA" + "IOSFODNN7EXAMPLE", "ASIA" + "IOSFODNN7EXAMPLE", f"npm_{MIXED}", f"pypi-{MIXED}"),
    *(f"SG.{MIXED}.{MIXED}", f"sk_live_{MIXED}", f"rk_test_{MIXED}", f"shpat_{HEX}"),
    *(f"dop_v1_{HEX}{HEX}", f"hf_{MIXED}", f"r8_{MIXED}", f"xai-{MIXED}", f"gsk_{MIXED}"),
    *(f"pplx-{MIXED}", f"tgp_v1_{MIXED}", f"GOCSPX-{MIXED}", f"dapi{HEX}", f"key-{HEX}"),
    *(f"lsv2_pt_{MIXED}", f"phc_{MIXED}", f"csk-{MIXED}", f"tvly-{MIXED}", f"fw_{MIXED}", JWT, PEM),
    *(f"hvs.{MIXED}", f"glsa_{MIXED}", f"sntrys_{MIXED}", f"dckr_pat_{MIXED}", f"ABSK{MIXED}"),
    *(f"123456789:AA{MIXED}", f"discord.com/api/webhooks/12/{MIXED}", f"LTAI{MIXED}"),
    *("sk-proj-abc***xyz1234", "sk-12345...6789", "hunt****ter9", "AIzaSyD-********wxyz"),
]
VALUE = "hunter2-Xy9"
BY_NAME = [
    f"https://h.example/v1?key={VALUE}&alt=sse",
    f"GET /v1/models;key={VALUE}",
    f"https://h.example/?x=1&api_key={VALUE}",
    f"https://blob.example/c?sv=2022&sig={VALUE}%3D",
    f'{{"api_key": "{VALUE}"}}',
    f'{{"apiKey":"{VALUE}"}}',
    f"{{'api-key': '{VALUE}'}}",
    f'{{\\"api_key\\": \\"{VALUE}\\"}}',
    f"OPENAI_API_KEY={VALUE}",
    f"AZURE_OPENAI_KEY: {VALUE}",
    f"aws_secret_access_key = {VALUE}",
    f"password={VALUE}",
    f'password: "{VALUE}"',
    f"PGPASSWORD={VALUE}",
    "Passwd: correcthorse",
    f"client_secret={VALUE}&grant_type=refresh_token",
    f"clientSecret: {VALUE}",
    f"refresh_token={VALUE}",
    f"'accessToken': '{VALUE}'",
    f"token={VALUE}",
    "token=correcthorse",
    "{'sig': 'correcthorse'}",
    "X-Auth-Token: correcthorse",
    f"api_key%3D{VALUE}",
    f"--api-key {VALUE}",
    f"{{'authorization': ['Bearer {VALUE}']}}",
    f"token: {VALUE}",
    f"secret={VALUE}",
    f"secret: {VALUE}",
    f"AccountKey={VALUE}==;EndpointSuffix=core.windows.net",
    f"SharedAccessKey={VALUE};",
    f"x-api-key: {VALUE}",
    f"X-Goog-Api-Key: {VALUE}",
    f"Ocp-Apim-Subscription-Key: {VALUE}",
    f"(b'x-api-key', b'{VALUE}')",
    f"[('api-key', '{VALUE}')]",
    f"headers={{'Authorization': 'Bearer {VALUE}'}}",
    f"Authorization: Bearer {VALUE}",
    f"authorization: Basic {base64.b64encode(b'user:' + VALUE.encode()).decode()}",
    f"Authorization: Token {VALUE}",
    f"Authorization: {VALUE}",
    f'Authorization: Digest username="joe", response="{VALUE}", opaque="{VALUE}"',
    f"Proxy-Authorization: Negotiate {VALUE}",
    f"Authorization: AWS4-HMAC-SHA256 Credential=AK/20260101, Signature={VALUE}",
    f"Cookie: theme=dark; session={VALUE}",
    f"Set-Cookie: sid={VALUE}; Path=/",
    f"used Bearer {VALUE} to call",
    f"https://user:{VALUE}@h.example/v1",
    f"https://{VALUE}@h.example/v1",
    f"postgresql://joe:{VALUE}@db:5432/x",
    f"Incorrect API key provided: {VALUE}. You can find your API key at https://example.com.",
    f"Invalid api key '{VALUE}'",
    f"The API key {VALUE} is not valid",
    f"<password>{VALUE}</password>",
    f"api_key: >\n  {VALUE}",
]
STAY = [
    "The quick brown fox jumps over the lazy dog.",
    "Missing Authorization header",
    "Incorrect API key provided.",
    "You didn't provide an API key. You need to provide your API key in an Authorization header "
    "using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).".partition(" (")[0],
    "Rate limit reached for gpt-4o in organization org-AbCdEf12 on tokens per min (TPM): Limit "
    "30000, Used 29000, Requested 2000.",
    "max_tokens: 4096 is too large, the most is 2048",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "Unknown parameter: 'max_tokenz'",
    "Missing required key: 'messages'",
    "KeyError: 'choices'",
    "sort_key=name, monkey=3, keyboard: qwerty",
    "Unexpected token < in JSON at position 0",
    "token_count: 12, total tokens=3000",
    "HTTP 401 Unauthorized: the token has expired",
    "Basic authentication is not supported",
    "bearer of good news",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 broke it",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "trace 123e4567-e89b-12d3-a456-426614174000",
    "resp_68a1b2c3d4e5f60718293a4b5c6d7e8f",
    "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
    "toolu_01A09q90qw90lq917835lq9",
    "call_abc123DEF456",
    "msg_01XFDUDYJgAACzvnptvVoYEL",
    "req_011CSHoEeqs5C35K2UUqR7Fy",
    "file-BK7bzQj3FfZFXr7DbL6xJwfo",
    "ft:gpt-4o-mini-2024-07-18:my-org::AbCdEf12",
    "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-5-haiku",
    "accounts/fireworks/models/llama-v3p1-405b-instruct",
    "task-12345678 and risk-20240101 and desk-abc12345",
    "sk-learn and scikit-learn-compatible estimators",
    "hf_hub_download and npm_config_registry and pypi-index",
    "https://platform.openai.com/account/api-keys",
    "https://medium.com/@someone/story-1a2b3c4d5e6f",
    "mail joe@example.com or ask @joe",
    "Pneumonoultramicroscopicsilicovolcanoconiosis",
    "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 8).decode(),
    "**bold** and ***both*** and a * b * c",
    'File "/usr/lib/python3.11/site-packages/openai/_base_client.py", line 1047, in request',
    "2026-01-02T03:04:05.678Z",
    "The password is required.",
    "temperature=0.7, top_p=1, seed=12345678",
    "Your secret santa is coming",
    "Unexpected token: 'identifier'",
    "Error code: 400 - {'error': {'code': 'model_not_found_404', 'param': None}}",
    "error_code=context_length_exceeded, code: rate_limit_2",
    "sorted(found, key=len)",
]


@pytest.mark.parametrize("secret", BY_LOOK)
def test_a_credential_goes_by_its_look(secret: str) -> None:
    for around in ("{}", "said {}, sorry", '{{"x": "{}"}}', "(x={})", "is '{}'!"):
        recorded = without_credentials(around.format(secret))
        assert "[redacted]" in recorded
        assert secret[-6:] not in recorded


@pytest.mark.parametrize("text", BY_NAME)
def test_a_credential_goes_by_its_name_or_place(text: str) -> None:
    recorded = without_credentials(f"Request failed: {text}")
    assert "[redacted]" in recorded
    for secret in (VALUE, "correcthorse", base64.b64encode(b"user:" + VALUE.encode()).decode()):
        assert secret not in recorded


@pytest.mark.parametrize("text", STAY)
def test_what_is_no_credential_stays(text: str) -> None:
    assert without_credentials(text) == text


def test_what_stands_around_a_credential_stays() -> None:
    said = f'Error 401: {{"api_key": "{VALUE}", "model": "gpt-5"}} at https://u:{VALUE}@h/v1?x=1'
    assert without_credentials(said) == (
        'Error 401: {"api_key": "[redacted]", "model": "gpt-5"} at https://[redacted]@h/v1?x=1'
    )


def test_a_secret_beside_the_id_of_its_access_key_goes() -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    assert secret not in without_credentials(f"AKIAIOSFODNN7EXAMPLE:{secret}")


@pytest.mark.parametrize(
    ("url", "recorded"),
    [
        ("https://h.example/v1", "https://h.example/v1"),
        ("http://localhost:4000/openai/v1/", "http://localhost:4000/openai/v1/"),
        (
            "https://r.openai.azure.com/openai/deployments/gpt-4o-mini-2024-07-18",
            "https://r.openai.azure.com/openai/deployments/gpt-4o-mini-2024-07-18",
        ),
        (f"https://h.example/v1/{MIXED}/chat", "https://h.example/v1/[redacted]/chat"),
        (f"https://h.example/{HEX}", "https://h.example/[redacted]"),
        (f"https://h.example/v1;key={VALUE}/chat", "https://h.example/v1/chat"),
    ],
)
def test_a_path_has_no_credentials(url: str, recorded: str) -> None:
    assert address_without_credentials(url) == recorded


SLOW = [
    *("a", "a-", "key=", 'key="', "key='", 'key\\"', "key: token: ", "secret=", "password    "),
    *("eyJ", "eyJa.", "sk-", "hf_", "AKIA", "ab*", "://", "://a@", "?aaaaaaaaaaaaaaaaaaaaaaaa"),
    *("authorization: ", 'authorization="', "cookie:'", "-----BEGIN A-----", "bearer ", "\\", "'"),
    *("api key is ", "[(", "123456789:", "x-a-"),
    *(
        "%25",
        "%",
        "%2",
        "\\u005c",
        "\\u",
        "&amp;",
        "&amp",
        "&#38;",
        "&quot;key&quot;:",
        "%22key%22%3A",
    ),
]


@pytest.mark.parametrize("piece", SLOW)
def test_no_text_is_slow_to_search(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen times the text takes far less than its square."""
    monkeypatch.setattr("posthog_llm._privacy.credentials._MOST", 10**9)
    small, large = (partial(without_credentials, piece * (n // len(piece))) for n in SIZES)
    assert is_below(4 * (SIZES[1] / SIZES[0]) * cpu_of(small) + 0.02, large)


SIZES = 2_000, 32_000


# -- what the call itself carried --------------------------------------------------------

ODD = 'pa"ss/wörd+1'
"""A secret that has no known look, and looks otherwise in a URL and in JSON."""


def told_of(event: CapturedEvent) -> str:
    return json.dumps([dict(event.properties), event.distinct_id], ensure_ascii=False)


@every_provider
@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({"x-custom-token": "plumtree-9"}, "plumtree-9"),
        ({"Cookie": "theme=dark; sid=plumtree-9"}, "plumtree-9"),
        ({"Proxy-Authorization": "Odd plumtree-9"}, "plumtree-9"),
        (
            {"Proxy-Authorization": "Basic " + base64.b64encode(b"joe:plumtree-9").decode()},
            "plumtree-9",
        ),
        ({"Helicone-Auth": "Bearer plumtree-9"}, "plumtree-9"),
        ({"cf-aig-authorization": "Bearer plumtree-9"}, "plumtree-9"),
        ({"x-session-token": "qWertZuiop"}, "qWertZuiop"),
        ({"x-session-token": "plumtreeplumtreeplumtree"}, "plumtreeplumtreeplumtree"),
    ],
    ids=["custom", "cookie", "scheme", "basic", "gateway", "cloudflare", "letters", "long"],
)
def test_what_a_request_carried_never_leaves(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, headers: Any, secret: str
) -> None:
    error = {"message": f"no: {secret}", "type": secret, "code": secret}
    provider.script(drive.vendor.path, Reply.json({"error": error}, 400))
    client = drive.ours(posthog_client=sink, default_headers=headers)
    with pytest.raises(drive.vendor.sdk.BadRequestError):
        drive.ask(client, messages=[{"role": "user", "content": f"is {secret} safe?"}])
    (event,) = sink.wait_for(1)
    assert secret not in told_of(event)
    assert event.properties["$ai_input"][0]["content"] == "is [redacted] safe?"


def test_a_key_never_leaves_in_any_form(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    forms = [
        ODD,
        quote(ODD, safe=""),
        json.dumps(ODD)[1:-1],
        json.dumps(ODD, ensure_ascii=False)[1:-1],
    ]
    provider.script("/chat/completions", Reply.json({"error": {"message": str(forms)}}, 400))
    client = drive.ours(posthog_client=sink)
    with pytest.raises(drive.vendor.sdk.BadRequestError):
        drive.ask(
            client,
            messages=[{"role": "user", "content": " and ".join(forms)}],
            extra_query={"key": ODD},
        )
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_input"][0]["content"] == " and ".join(["[redacted]"] * 4)
    for form in forms:
        assert form not in event.properties["$ai_error"]


def test_credentials_go_from_all_that_a_provider_says_beside_its_answer(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    key = f"ghp_{MIXED}"
    answer = {
        "id": key,
        "model": f"m {key}",
        "service_tier": key,
        "choices": [{"index": 0, "message": {"content": key}, "finish_reason": f"no {key}"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "note": key, key: "x"},
    }
    provider.script("/chat/completions", Reply.json(answer, **{"x-request-id": key}))
    drive.ask(drive.ours(posthog_client=sink), posthog_span_name=f"with {key}")
    (event,) = sink.wait_for(1)
    properties = dict(event.properties)
    said = properties.pop("$ai_output_choices")
    assert key not in json.dumps(properties)
    assert said == saying(key), "content is the caller's, and has a redactor for it"
    assert properties["$ai_usage"] == {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "note": "[redacted]",
        "[redacted]": "x",
    }


@pytest.mark.parametrize("key", ["ollama", "not-needed", "EMPTY"])
def test_a_key_that_is_none_is_a_word_like_any_other(
    drive: Driver, sink: MemorySink, key: str
) -> None:
    said = f"{key} runs here"
    drive.ask(
        drive.ours(posthog_client=sink, api_key=key), messages=[{"role": "user", "content": said}]
    )
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_input"][0]["content"] == said


# -- of a request that is another than was built ---------------------------------------------


def sign(request: Any) -> None:
    request.headers = HTTP.Headers({**request.headers, "x-api-key": "late-key-998877"})


async def sign_async(request: Any) -> None:
    sign(request)


class Signed(HTTP.Auth):
    def auth_flow(self, request: Any) -> Any:
        headers = {**request.headers, "authorization": "Bearer late-key-998877"}
        yield HTTP.Request(
            request.method,
            request.url,
            headers=headers,
            content=request.content,
            extensions=request.extensions,
        )


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("by", ["hook", "auth"])
def test_credential_that_came_after_the_request_was_built(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, by: str, status: int
) -> None:
    if status == 400:
        provider.script("/chat/completions", Reply.json({"error": {"message": "no"}}, 400))
    kind, hook = (HTTP.AsyncClient, sign_async) if drive.prefix else (HTTP.Client, sign)
    more = {"auth": Signed()} if by == "auth" else {"event_hooks": {"request": [hook]}}
    client = drive.ours(posthog_client=sink, http_client=kind(**more), base_url=provider.base_url)
    asked = [{"role": "user", "content": "I have late-key-998877"}]
    if status == 400:
        with pytest.raises(openai.BadRequestError):
            drive.ask(client, messages=asked)
    else:
        drive.ask(client, messages=asked)
    assert "late-key-998877" in repr(provider.requests[-1].headers)
    (event,) = sink.wait_for(1)
    assert "late-key" not in repr(event.properties)
    assert event.properties["$ai_input"][0]["content"].startswith("I have ")
