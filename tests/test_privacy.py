"""What leaves, and what never does."""

from __future__ import annotations

import base64
import gc
import json
import os
from typing import Any

import openai as sdk
import posthog
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posthog_llm
from posthog_llm._media import without_blobs
from posthog_llm._privacy import Cleaner, parameters
from posthog_llm.testing import CapturedEvent, MemorySink, PostHogReceiver, Reply, ScriptedProvider

from .driving import Driver, every_provider, every_sdk, failure_of, saying

SECRET = "xyzzy"
SCHEMA = {"type": "object", "properties": {SECRET: {"type": "string"}}}
PRIVATE_ASK: dict[str, Any] = {
    "model": "gpt-5-mini",
    "messages": [{"role": "user", "content": f"my {SECRET}"}],
    "tools": [{"type": "function", "function": {"name": SECRET, "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": SECRET}},
    "response_format": {"type": "json_schema", "json_schema": {"name": SECRET, "schema": SCHEMA}},
    "stop": [SECRET],
    "prediction": {"type": "content", "content": SECRET},
    "metadata": {"who": SECRET},
    "user": SECRET,
    "prompt_cache_key": SECRET,
    "safety_identifier": SECRET,
    "temperature": 0.5,
    "reasoning_effort": "low",
    "seed": 7,
    "logit_bias": {"1": 2},
    "extra_body": {"something_new": SECRET},
}


def everything(event: CapturedEvent) -> str:
    return json.dumps([dict(event.properties), event.distinct_id, dict(event.groups)])


def ask(drive: Driver, client: Any, **more: Any) -> Any:
    return drive.call(lambda: client.chat.completions.create(**{**PRIVATE_ASK, **more}))


def secretly(drive: Driver, client: Any, **more: Any) -> Any:
    return drive.ask(client, messages=PRIVATE_ASK["messages"], **more)


def test_private_call_keeps_numbers_and_drops_content(drive: Driver, sink: MemorySink) -> None:
    ask(drive, drive.ours(posthog_client=sink), posthog_privacy_mode=True)
    (event,) = sink.wait_for(1)
    assert SECRET not in everything(event)
    for name in ("$ai_input", "$ai_output_choices", "$ai_tools"):
        assert name not in event.properties
    assert event.properties["$ai_model_parameters"] == {
        "response_format": {"type": "json_schema"},
        "temperature": 0.5,
        "reasoning_effort": "low",
        "seed": 7,
    }
    assert event.properties["$ai_input_tokens"] > 0
    assert event.properties["$ai_latency"] > 0
    assert event.properties["$ai_model"] == "gpt-5-mini"


def test_private_error_tells_class_and_code_only(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    error = {"message": f"you said: {SECRET}", "type": "invalid", "code": "content_filter"}
    provider.script("/chat/completions", Reply.json({"error": error}, 400))
    with pytest.raises(sdk.BadRequestError):
        ask(drive, drive.ours(posthog_client=sink), posthog_privacy_mode=True)
    (event,) = sink.wait_for(1)
    assert SECRET not in everything(event)
    assert failure_of(event.properties) == {
        "message": "BadRequestError: 400 content_filter",
        "type": "BadRequestError",
        "status": 400,
        "code": "content_filter",
    }


def test_private_files_have_no_names(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink, posthog_privacy_mode=True)
    drive.call(
        lambda: client.audio.transcriptions.create(
            model="whisper-1", file=(f"{SECRET}.mp3", b"ID3"), prompt=SECRET, language="en"
        )
    )
    (event,) = sink.wait_for(1)
    assert SECRET not in everything(event)
    assert event.properties["$ai_model_parameters"] == {"language": "en"}


def test_content_among_the_callers_properties_is_withheld_too(
    drive: Driver, sink: MemorySink
) -> None:
    custom = {"$ai_input": SECRET, "$ai_output": SECRET, "kept": 1}
    client = drive.ours(posthog_client=sink)
    ask(drive, client, posthog_privacy_mode=True, posthog_properties=custom)
    (event,) = sink.wait_for(1)
    assert SECRET not in everything(event)
    assert event.properties["kept"] == 1


def test_the_type_of_a_private_step_is_a_word(sink: MemorySink) -> None:
    with posthog_llm.context(posthog_client=sink, privacy_mode=True):
        for kind in ("tool", f"asked for {SECRET}, at once"):
            with posthog_llm.span("s", type=kind):
                pass
    word, sentence = sink.wait_for(2)
    assert word.properties["$ai_span_type"] == "tool"
    assert SECRET not in everything(sentence)


@every_sdk
def test_any_yes_is_a_yes(drive: Driver) -> None:
    """The call may say no to its client's default, and to nothing else."""

    def private(client_default: Any, context: Any, call: Any, destination: bool) -> bool:
        sink = MemorySink(privacy_mode=destination)
        client = drive.ours(posthog_client=sink, posthog_privacy_mode=client_default)
        with posthog_llm.context(privacy_mode=context):
            secretly(drive, client, posthog_privacy_mode=call)
        return "$ai_input" not in sink.wait_for(1)[0].properties

    for client_default in (None, True):
        for context in (None, False, True):
            for call in (None, False, True):
                for destination in (False, True):
                    expected = bool(
                        call or context or destination or (client_default and call is not False)
                    )
                    assert private(client_default, context, call, destination) is expected


@every_sdk
def test_what_is_configured_private_nothing_switches_off(drive: Driver, sink: MemorySink) -> None:
    with pytest.raises(TypeError, match="privacy_mode must be True or False"):
        posthog_llm.configure(privacy_mode="yes")  # type: ignore[arg-type]
    posthog_llm.configure(privacy_mode=True)
    try:
        client = drive.ours(posthog_client=sink, posthog_privacy_mode=False)
        with posthog_llm.context(privacy_mode=False), posthog_llm.span("s", input=SECRET):
            secretly(drive, client, posthog_privacy_mode=False)
    finally:
        posthog_llm.configure(privacy_mode=False)  # what was asked before stays so
    for event in sink.wait_for(2):
        assert SECRET not in everything(event)
    secretly(drive, client)
    assert "$ai_input" in sink.wait_for(3)[-1].properties


@every_sdk
def test_posthog_client_and_module_in_privacy_mode(
    drive: Driver, receiver: PostHogReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = posthog.Posthog("phc_test", host=receiver.url, privacy_mode=True)
    open_one = posthog.Posthog("phc_test", host=receiver.url)
    secretly(drive, drive.ours(posthog_client=destination), posthog_privacy_mode=False)
    destination.flush()
    monkeypatch.setattr(posthog, "privacy_mode", True)
    secretly(drive, drive.ours(posthog_client=open_one), posthog_privacy_mode=False)
    open_one.flush()
    events = receiver.wait_for(2)
    assert SECRET not in json.dumps(events)


# -- always ----------------------------------------------------------------------------


@every_provider
def test_credentials_never_leave(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    key = "odd+key/without-a-known-shape"
    said = f"Incorrect API key provided: {key}, or sk-proj-abc***xyz1234, Bearer abcdef123"
    error = {"message": said}
    provider.script(drive.vendor.path, Reply.json({"error": error}, 401))
    client = drive.ours(posthog_client=sink, api_key=key)
    with pytest.raises(drive.vendor.sdk.AuthenticationError):
        drive.ask(
            client,
            messages=[{"role": "user", "content": f"is {key} safe?"}],
            extra_headers={"Authorization": f"Bearer {key}", "X-Other": "header-value"},
            extra_body={"api_key": key},
        )
    (event,) = sink.wait_for(1)
    properties = everything(event)
    for secret in (key, "abc***", "abcdef123", "header-value"):
        assert secret not in properties
    assert "[redacted]" in event.properties["$ai_error"]


@every_provider
def test_credentials_in_the_address_never_leave(drive: Driver, sink: MemorySink) -> None:
    host = drive.provider.url.removeprefix("http://")
    path = drive.vendor.base_path
    client = drive.ours(posthog_client=sink, base_url=f"http://user:hunter22@{host}{path}")
    drive.ask(client, extra_query={"sig": "hunter22"})
    (event,) = sink.wait_for(1)
    assert "hunter22" not in everything(event)
    assert event.properties["$ai_base_url"].rstrip("/") == f"http://{host}{path}"


def test_mcp_credentials_are_redacted(drive: Driver, sink: MemorySink) -> None:
    tool = {
        "type": "mcp",
        "server_label": "crm",
        "server_url": "https://u:hunter22@mcp.example.com/sse?token=hunter22",
        "authorization": "hunter22",
        "headers": {"X-Key": "hunter22"},
    }
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.responses.create(model="m", input="x", tools=[tool]))
    (event,) = sink.wait_for(1)
    assert "hunter22" not in everything(event)
    (properties,) = event.properties["$ai_tools"]
    assert properties["server_label"] == "crm"
    assert properties["headers"] == properties["authorization"] == "[redacted]"


@pytest.mark.parametrize("size", [3, 300, 300_000])
def test_media_is_captured_by_type_and_size(drive: Driver, sink: MemorySink, size: int) -> None:
    data = base64.b64encode(os.urandom(size)).decode()
    url = "https://example.com/cat.png"
    pdf = f"data:application/pdf;base64,{data}"
    content = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": pdf}},
    ]
    client = drive.ours(posthog_client=sink)
    drive.call(
        lambda: client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": content}]
        )
    )
    (event,) = sink.wait_for(1)
    properties = event.properties["$ai_input"][0]["content"]
    assert data not in json.dumps(properties)
    assert properties[0]["text"] == "look"
    assert properties[1]["image_url"]["url"] == f"[image/png, {size} bytes]"
    assert properties[2]["image_url"]["url"] == url
    assert properties[3]["input_audio"]["data"].endswith(f", {size} bytes]")
    assert properties[4]["file"]["file_data"] == f"[application/pdf, {size} bytes]"
    assert properties[4]["file"]["filename"] == "a.pdf"


def test_pictures_in_answers(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    data = base64.b64encode(bytes(range(256)) * 20).decode()
    item = {"type": "image_generation_call", "id": "ig", "status": "completed", "result": data}
    hidden = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": data[:400]}
    body = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed"}
    provider.script("/responses", Reply.json({**body, "output": [item, hidden], "tools": []}))
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.images.generate(prompt="x", model="gpt-image-1"))
    drive.call(lambda: client.responses.create(model="m", input="x"))
    picture, response = sink.wait_for(2)
    (block,) = picture.properties["$ai_output_choices"][0]["content"]
    assert block["b64_json"] == "[image/png, 48 bytes]"
    drawn, reasoning = response.properties["$ai_output_choices"][0]["content"]
    assert drawn["result"].endswith("5120 bytes]")
    assert data[:40] not in json.dumps(reasoning)


def test_long_text_is_no_media() -> None:
    for text in ("x" * 50_000, "ACGT" * 10_000, "word " * 10_000, "0123456789abcdef" * 3000):
        body = json.dumps({"content": text}).encode()
        assert without_blobs(body) == body
        assert Cleaner().content({"content": text}) == {"content": text}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=30),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=20,
    ),
    st.integers(0, 6000),
)
@settings(max_examples=200, deadline=None)
def test_blobs_are_cut_out_of_any_json_and_nothing_else(value: Any, size: int) -> None:
    blob = base64.b64encode(os.urandom(9000 + size)).decode()
    body = json.dumps([value, blob, value]).encode()
    before, properties, after = json.loads(without_blobs(body))
    assert before == after == value
    assert properties == f"[binary, {9000 + size} bytes]"


# -- the caller's redactor ---------------------------------------------------------------


def test_redactor_sees_each_text_and_may_change_or_drop_it(drive: Driver, sink: MemorySink) -> None:
    seen: list[str] = []

    def redact(text: str) -> str | None:
        seen.append(text)
        if "drop" in text:
            return None
        return text.replace(SECRET, "***")

    client = drive.ours(posthog_client=sink, posthog_redact=redact)
    prediction = {"type": "content", "content": f"a {SECRET}"}
    messages = [
        {"role": "system", "content": "drop me"},
        {"role": "user", "content": [{"type": "text", "text": f"my {SECRET}"}]},
    ]
    drive.call(
        lambda: client.chat.completions.create(
            model="m", messages=messages, prediction=prediction, reasoning_effort="low"
        )
    )
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_model_parameters"] == {
        "prediction": {"type": "content", "content": "a ***"},
        "reasoning_effort": "low",
    }
    assert event.properties["$ai_input"] == [
        {"role": "system", "content": "[withheld]"},
        {"role": "user", "content": [{"type": "text", "text": "my ***"}]},
    ]
    assert event.properties["$ai_output_choices"] == saying("You said: my ***")
    said = f"You said: my {SECRET}"
    assert sorted(seen) == sorted([f"a {SECRET}", "drop me", f"my {SECRET}", said])


@pytest.mark.parametrize("broken", [lambda text: 1 / 0, lambda text: 7])
def test_redactor_that_fails_withholds(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider, broken: Any
) -> None:
    client = drive.ours(posthog_client=sink, posthog_redact=broken)
    ask(drive, client)
    provider.script("/chat/completions", Reply.json({"error": {"message": SECRET}}, 400))
    with pytest.raises(sdk.BadRequestError):
        ask(drive, client)
    first, second = sink.wait_for(2)
    for event in (first, second):
        assert "$ai_input" not in event.properties
        assert SECRET not in json.dumps(
            [event.properties.get(k) for k in ("$ai_output_choices", "$ai_tools", "$ai_error")]
        )
        assert event.properties["posthog_llm_content_withheld"]
        assert SECRET not in json.dumps(event.properties["$ai_model_parameters"])
    assert first.properties["$ai_input_tokens"] > 0


def test_parameters_are_an_allow_list() -> None:
    asked = {"temperature": 1, "brand_new": 1, "api_key": "x", "reasoning_effort": "a b c"}
    assert parameters(asked, private=False) == {"temperature": 1, "reasoning_effort": "a b c"}
    assert parameters(asked, private=True) == {"temperature": 1}


# -- privacy mode, whoever says it --------------------------------------------------------

SENTENCE = f"you said: my {SECRET}"


def test_a_provider_that_echoes_the_prompt_everywhere_is_not_captured(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    answer = {
        "id": SENTENCE,
        "model": SENTENCE,
        "service_tier": SENTENCE,
        "provider": SENTENCE,
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": SENTENCE}],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "note": SENTENCE,
            SENTENCE: 1,
            "details": {"tier": "flex", "notes": [SENTENCE]},
        },
    }
    provider.script("/chat/completions", Reply.json(answer, **{"x-request-id": SENTENCE}))
    ask(drive, drive.ours(posthog_client=sink), posthog_privacy_mode=True)
    (event,) = sink.wait_for(1)
    properties = event.properties
    assert SECRET not in everything(event)
    for name in ("$ai_stop_reason", "$ai_service_tier", "posthog_llm_served_model"):
        assert properties[name] == "[withheld]"
    assert (
        properties["posthog_llm_request_id"]
        == properties["posthog_llm_response_id"]
        == "[withheld]"
    )
    assert properties["$ai_model"] == "gpt-5-mini"
    assert properties["$ai_usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "note": "[withheld]",
        "details": {"tier": "flex", "notes": ["[withheld]"]},
    }
    assert properties["$ai_input_tokens"] == 5


@every_provider
def test_an_error_that_echoes_the_prompt_everywhere_is_not_captured(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    error = {"message": SENTENCE, "type": SENTENCE, "code": SENTENCE}
    body = {"type": "error", "error": error}
    provider.script(drive.vendor.path, Reply.json(body, 400))
    client = drive.ours(posthog_client=sink, posthog_privacy_mode=True)
    with pytest.raises(drive.vendor.sdk.BadRequestError):
        secretly(drive, client)
    provider.script(
        drive.vendor.path, Reply.stream([b"event: error\ndata: %b\n\n" % json.dumps(body).encode()])
    )
    with pytest.raises(drive.vendor.sdk.APIError):
        drive.items(secretly(drive, client, stream=True))
    gc.collect()  # older SDKs leave a stream open in which they raise
    refused, broken = sink.wait_for(2)
    for event in (refused, broken):
        assert SECRET not in everything(event)
        assert event.properties["$ai_is_error"] is True
    assert refused.properties["$ai_error_type"] == "BadRequestError"


@every_sdk
def test_content_under_any_of_posthogs_names_is_withheld(drive: Driver, sink: MemorySink) -> None:
    content = {
        "$ai_error": {"message": SENTENCE, "code": "boom", "status": 500},
        "$ai_output": SENTENCE,
        "$ai_model_parameters": {"voice": SENTENCE, "seed": 1},
        "$ai_stop_reason": SENTENCE,
        "$ai_something_new": [SENTENCE],
        "posthog_llm_error_stack": SENTENCE,
    }
    client = drive.ours(posthog_client=sink)
    with posthog.new_context(client=posthog.Posthog("phc_x", send=False)):
        for name, value in content.items():
            posthog.tag(name, value)
        secretly(drive, client, posthog_privacy_mode=True)
    mine = {**content, "mine": "a sentence of my own", "$current_url": "https://h/a b"}
    secretly(drive, client, posthog_privacy_mode=True, posthog_properties=mine)
    tagged, given = sink.wait_for(2)
    for event in (tagged, given):
        assert SECRET not in everything(event)
    properties = given.properties
    assert properties["$ai_error"] == {"message": "[withheld]", "code": "boom", "status": 500}
    assert properties["$ai_model_parameters"] == {"voice": "[withheld]", "seed": 1}
    assert properties["$ai_something_new"] == ["[withheld]"]
    assert properties["mine"] == "a sentence of my own"
    assert properties["$current_url"] == "https://h/a b"


def test_parameters_with_a_sentence_are_withheld(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink, posthog_privacy_mode=True)
    drive.call(
        lambda: client.chat.completions.create(
            model="m",
            messages=PRIVATE_ASK["messages"],
            extra_body={
                "voice": SENTENCE,
                "reasoning_effort": SENTENCE,
                "language": "en",
                "include": [SENTENCE],
                "audio": {"voice": SENTENCE, "format": "wav"},
            },
        )
    )
    (event,) = sink.wait_for(1)
    assert SECRET not in everything(event)
    assert event.properties["$ai_model_parameters"] == {
        "language": "en",
        "audio": {"format": "wav"},
    }


def test_names_that_models_and_providers_have_are_captured(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-v1:0"
    answer = {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "model": arn,
        "provider": "Google AI Studio",
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "end_turn"}],
    }
    provider.script("/chat/completions", Reply.json(answer))
    ask(
        drive,
        drive.ours(posthog_client=sink),
        posthog_privacy_mode=True,
        posthog_span_name="my own title",
        model="my deployment (test)",
    )
    (event,) = sink.wait_for(1)
    properties = event.properties
    assert properties["$ai_model"] == properties["posthog_llm_served_model"] == arn
    assert properties["posthog_llm_requested_model"] == "my deployment (test)"
    assert properties["posthog_llm_response_id"] == answer["id"]
    assert properties["posthog_llm_upstream_provider"] == "Google AI Studio"
    assert properties["$ai_stop_reason"] == "end_turn"
    assert properties["$ai_span_name"] == "my own title"
