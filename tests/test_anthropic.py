"""What is Anthropic's own: its messages, numbers, clients, batches, tool runner and tracing."""

from __future__ import annotations

import gc
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic as sdk
import pytest

import posthog_llm
from posthog_llm import anthropic as ours
from posthog_llm._providers import aws_event_stream
from posthog_llm._providers.hosts import provider_of, regional
from posthog_llm._providers.model_name import priced_name
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider
from posthog_llm.testing._echo_messages import aws_frame

from .driving import ANTHROPIC, OPENAI, AsyncDriver, Driver, SyncDriver, Vendor, failure_of, outcome

WIRE = Path(__file__).parent / "wire" / "anthropic"
MESSAGE = json.loads((WIRE / "message.json").read_text())
SSE = (WIRE / "message.sse").read_bytes()
ASK: dict[str, Any] = {
    "model": "claude-haiku-5-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "weather?"}],
}
CITATION = {
    "type": "web_search_result_location",
    "url": "https://example.com",
    "title": "Example",
    "cited_text": "It is sunny",
}
SAID = [
    {"type": "thinking", "thinking": "Let me think."},
    {"type": "redacted_thinking"},
    {
        "type": "server_tool_use",
        "id": "srvtoolu_1",
        "name": "web_search",
        "input": {"query": "weather"},
    },
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [
            {"type": "web_search_result", "url": "https://example.com", "title": "Example"}
        ],
    },
    {"type": "text", "text": "It is sunny in Lisbon.", "citations": [CITATION]},
    {
        "type": "function",
        "id": "toolu_1",
        "function": {"name": "get_weather", "arguments": {"city": "Lisbon", "days": [1, 2]}},
    },
]
TOLD = {
    "$ai_lib": "posthog-llm",
    "$ai_provider": "anthropic",
    "$ai_model": MESSAGE["model"],
    "posthog_llm_requested_model": "claude-haiku-5-5",
    "posthog_llm_served_model": "claude-sonnet-4-5-20250929",
    "$ai_http_status": 200,
    "$ai_service_tier": "priority",
    "$ai_stop_reason": "tool_use",
    "$ai_input": [{"role": "user", "content": "weather?"}],
    "$ai_output_choices": [{"role": "assistant", "content": SAID}],
    "$ai_input_tokens": 25,
    "$ai_output_tokens": 57,
    "$ai_reasoning_tokens": 12,
    "$ai_cache_read_input_tokens": 100,
    "$ai_cache_creation_input_tokens": 30,
    "$ai_cache_creation_5m_input_tokens": 10,
    "$ai_cache_creation_1h_input_tokens": 20,
    "$ai_cache_reporting_exclusive": True,
    "$ai_tokens_source": "sdk",
    "$ai_web_search_count": 2,
    "$ai_usage": MESSAGE["usage"],
    "posthog_llm_endpoint": "message",
    "posthog_llm_outcome": "ok",
    "posthog_llm_request_id": "req_test",
    "posthog_llm_response_id": "msg_01",
    "posthog_llm_retries": 0,
}
VARIES = {
    *("$ai_lib_version", "$ai_trace_id", "$ai_span_id", "$ai_base_url", "$ai_latency"),
    *("$ai_time_to_first_token", "$ai_stream", "$ai_model_parameters"),
    "$process_person_profile",
}
AWS = {"aws_region": "us-east-1", "aws_access_key": "AKIAXXXXXXXXXXXXXXXX", "aws_secret_key": "s3"}


def recorded(properties: Any) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if name not in VARIES}


@pytest.fixture(params=[SyncDriver, AsyncDriver], ids=["sync", "async"])
def drive(request: pytest.FixtureRequest, provider: ScriptedProvider) -> Any:
    driver = request.param(provider, ANTHROPIC)
    yield driver
    driver.close()


def sse(events: list[Any]) -> Reply:
    return Reply.stream(
        [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events], done=False
    )


def frames(body: bytes) -> list[bytes]:
    return [aws_frame(json.loads(b.partition(b"data: ")[2])) for b in body.split(b"\n\n") if b]


# -- one event -------------------------------------------------------------------------


def test_plain_and_streamed_answer_are_one_and_the_same(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    client = drive.ours(posthog_client=sink)
    provider.script("/messages", Reply.json(MESSAGE))
    drive.call(lambda: client.messages.create(**ASK))
    provider.script("/messages", Reply.stream([SSE], done=False))
    drive.collect(lambda: client.messages.create(**ASK, stream=True))
    plain, streamed = sink.wait_for(2)
    assert recorded(plain.properties) == TOLD
    assert recorded(streamed.properties) == TOLD
    assert streamed.properties["$ai_model_parameters"] == {"max_tokens": 100, "stream": True}
    assert 0 < streamed.properties["$ai_time_to_first_token"] <= streamed.properties["$ai_latency"]


def test_bedrocks_event_stream_is_the_same(drive: Driver, sink: MemorySink) -> None:
    client = client_of(drive, "AnthropicBedrock", posthog_client=sink, **AWS)
    model = "us.anthropic.claude-haiku-5-5-v1:0"
    reply = Reply(frames(SSE), headers={"content-type": aws_event_stream.CONTENT_TYPE})
    drive.provider.script(f"/model/{model}/invoke-with-response-stream", reply)
    stream = drive.call(lambda: client.messages.create(**{**ASK, "model": model}, stream=True))
    assert len(drive.items(stream)) > 10
    (event,) = sink.wait_for(1)
    found = recorded(event.properties)
    changed = {
        "$ai_provider": "bedrock",
        "$ai_model": model,
        "posthog_llm_requested_model": model,
    }
    assert {**found, "posthog_llm_request_id": "req_test"} == {**TOLD, **changed}
    assert event.properties["$ai_stream"] is True
    assert event.properties["$ai_time_to_first_token"] > 0


def test_helpers_see_nothing_of_us(drive: Driver, sink: MemorySink) -> None:
    def used(client: Any) -> Any:
        def use(stream: Any) -> Any:
            return stream.get_final_text()

        return drive.inside(client.messages.stream(**ASK), use)

    assert used(drive.ours(posthog_client=sink)) == used(drive.bare()) == "You said: weather?"
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_output_tokens"] == 3


def test_raw_and_streaming_responses(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    raw = drive.call(
        lambda: client.messages.with_raw_response.create(**ASK, posthog_distinct_id="u1")
    )
    assert raw.http_response.json()["role"] == "assistant"
    manager = client.messages.with_streaming_response.create(**ASK, posthog_distinct_id="u2")
    drive.inside(manager, lambda response: response.read())
    accessor = client.with_raw_response.messages.create
    drive.call(lambda: accessor(**ASK, posthog_distinct_id="u3"))
    drive.call(lambda: client.beta.messages.create(**ASK, posthog_distinct_id="u4"))
    events = sink.wait_for(4)
    assert [event.distinct_id for event in events] == ["u1", "u2", "u3", "u4"]
    assert {event.properties["$ai_input_tokens"] for event in events} == {9}
    assert posthog_llm.event_id(raw) == events[0].uuid
    assert all("posthog" not in request.path for request in drive.provider.requests)


def test_what_runs_no_model_is_no_event(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    question = {"model": "m", "messages": ASK["messages"]}
    drive.call(lambda: client.messages.count_tokens(**question, posthog_distinct_id="u1"))
    sink.wait_for(0)


@pytest.mark.skipif(not hasattr(sdk.resources, "Completions"), reason="this SDK has none")
def test_legacy_completions(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    asked = {"model": "claude-2", "prompt": "\n\nHuman: hi\n\nAssistant:"}
    for stream in (False, True):
        answer = drive.call(
            lambda s=stream: client.completions.create(  # type: ignore[misc]
                **asked, max_tokens_to_sample=9, stream=s
            )
        )
        if stream:
            drive.items(answer)
    plain, streamed = (event.properties for event in sink.wait_for(2))
    assert plain["$ai_output_choices"] == streamed["$ai_output_choices"]
    assert plain["$ai_stop_reason"] == streamed["$ai_stop_reason"] == "stop_sequence"
    assert "$ai_input_tokens" not in plain


# -- what went in ------------------------------------------------------------------------


def test_request(drive: Driver, sink: MemorySink) -> None:
    picture = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    asked = {
        "model": "claude-haiku-5-5",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": picture},
                    {"type": "document", "source": {"type": "url", "url": "https://a.b/c.pdf"}},
                    {"type": "text", "text": "look"},
                ],
            }
        ],
        "tools": [{"name": "t", "input_schema": {"type": "object"}}],
        "metadata": {"user_id": "end-user"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stop_sequences": ["END"],
    }
    server = {"type": "url", "url": "https://mcp", "name": "m", "authorization_token": "secret-1"}
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.messages.create(**asked, extra_body={"mcp_servers": [server]}))
    (event,) = sink.wait_for(1)
    system, user = event.properties["$ai_input"]
    assert system == {"role": "system", "content": asked["system"]}
    image, document, text = user["content"]
    assert image["source"] == {**picture, "data": "[image/png, 8 bytes]"}
    assert document["source"]["url"] == "https://a.b/c.pdf"
    assert text == {"type": "text", "text": "look"}
    assert event.properties["$ai_tools"] == asked["tools"]
    parameters = event.properties["$ai_model_parameters"]
    assert parameters["thinking"] == asked["thinking"]
    assert parameters["mcp_servers"][0]["url"] == "https://mcp"
    assert "secret-1" not in json.dumps(dict(event.properties))
    assert event.distinct_id == event.properties["$ai_trace_id"]

    private = {**asked, "posthog_privacy_mode": True}
    drive.call(lambda: client.messages.create(**private))
    hidden = sink.wait_for(2)[1].properties
    assert hidden["$ai_model_parameters"] == {"max_tokens": 9, "thinking": asked["thinking"]}
    assert not {"$ai_input", "$ai_output_choices", "$ai_tools"} & hidden.keys()


@pytest.mark.parametrize(
    ("vendor", "named"),
    [
        (ANTHROPIC, {"metadata": {"user_id": "end-user"}}),
        (OPENAI, {"safety_identifier": "end-user"}),
        (OPENAI, {"user": "end-user"}),
    ],
)
def test_requests_user_is_who_asks_where_the_client_says_so(
    provider: ScriptedProvider, sink: MemorySink, vendor: Vendor, named: Any
) -> None:
    drive = SyncDriver(provider, vendor)
    client = drive.ours(posthog_client=sink, posthog_request_user=True, posthog_distinct_id="team")
    drive.ask(client, **named)
    drive.ask(client)
    drive.ask(client, **named, posthog_distinct_id="nearer")
    drive.ask(client.with_options(posthog_request_user=False), **named)
    found = [event.distinct_id for event in sink.wait_for(4)]
    assert found == ["end-user", "team", "nearer", "team"]
    with pytest.raises(TypeError, match="posthog_request_user must be True or False"):
        drive.ours(posthog_request_user="yes")


# -- what went wrong -----------------------------------------------------------------------


def test_error_inside_a_stream(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    events = [json.loads(block.partition(b"data: ")[2]) for block in SSE.split(b"\n\n")[:4]]
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    for _ in range(2):
        provider.script("/messages", sse([*events, error]))
    bare = outcome(lambda: drive.collect(lambda: drive.bare().messages.create(**ASK, stream=True)))
    client = drive.ours(posthog_client=sink)
    found = outcome(lambda: drive.collect(lambda: client.messages.create(**ASK, stream=True)))
    assert found == bare
    gc.collect()
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert failure_of(event.properties) == {
        "type": "overloaded_error",
        "code": "overloaded_error",
        "status": 200,
        "message": "Overloaded",
    }
    assert event.properties["$ai_input_tokens"] == 25
    assert "$ai_output_tokens" not in event.properties


def test_exception_frame_of_bedrock(drive: Driver, sink: MemorySink) -> None:
    client = client_of(drive, "AnthropicBedrock", posthog_client=sink, **AWS)
    error = {"type": "error", "error": {"type": "throttlingException", "message": "slow down"}}
    body = [*frames(SSE)[:4], aws_frame(error)]
    headers = {"content-type": aws_event_stream.CONTENT_TYPE}
    drive.provider.script("/model/m/invoke-with-response-stream", Reply(body, headers=headers))
    asked = {**ASK, "model": "m", "stream": True}
    outcome(lambda: drive.collect(lambda: client.messages.create(**asked)))
    gc.collect()
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["posthog_llm_error"]["type"] == "throttlingException"


def test_refusal_with_its_code(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    with pytest.raises(sdk.NotFoundError):
        drive.call(lambda: client.messages.create(**{**ASK, "model": "no-such-model"}))
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_error"]["code"] == "not_found_error"
    assert event.properties["$ai_http_status"] == 404


@pytest.mark.parametrize("cut", [5, 100, 300])
def test_event_stream_cut_anywhere(cut: int) -> None:
    body = b"".join(frames(SSE))
    whole = list(aws_event_stream.events(body))
    assert len(whole) == SSE.count(b"data: ")
    found = list(aws_event_stream.events(body[:-cut]))
    assert found == whole[: len(found)]
    assert list(aws_event_stream.events(b"\xff" * 40)) == []


# -- the clients -----------------------------------------------------------------------------


def client_of(drive: Driver, name: str, path: str = "", **kwargs: Any) -> Any:
    prefix = "Async" if isinstance(drive, AsyncDriver) else ""
    cls = getattr(ours, prefix + name, None)
    if cls is None:
        pytest.skip(f"this SDK has no {name}")
    return cls(base_url=drive.provider.url + path, max_retries=0, **kwargs)


CLIENTS: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("AnthropicBedrock", "", AWS, "global.anthropic.claude-opus-4-5-v1:0", "bedrock"),
    (
        "AnthropicVertex",
        "/v1",
        {"region": "europe-west1", "project_id": "p", "access_token": "t0k3n"},
        "claude-sonnet-4-5@20250929",
        "google-vertex-europe",
    ),
    (
        "AnthropicVertex",
        "/v1",
        {"region": "global", "project_id": "p", "access_token": "t0k3n"},
        "claude-sonnet-4-5@20250929",
        "google-vertex-global",
    ),
    (
        "AnthropicBedrockMantle",
        "",
        {"api_key": "k", "aws_region": "us-east-1"},
        "anthropic.claude-opus-4-7",
        "bedrock",
    ),
    ("AnthropicFoundry", "", {"api_key": "k"}, "claude-opus-4-7", "azure"),
    (
        "AnthropicAWS",
        "",
        {"api_key": "k", "aws_region": "us-east-1", "workspace_id": "w"},
        "claude-opus-4-7",
        "anthropic",
    ),
    (
        "AnthropicGoogleCloud",
        "",
        {"project": "p", "location": "us-central1", "workspace_id": "w"},
        "claude-opus-4-7",
        "anthropic",
    ),
]


@pytest.mark.parametrize("case", CLIENTS, ids=lambda case: f"{case[0]} {case[4]}")
def test_other_clients(drive: Driver, sink: MemorySink, case: Any) -> None:
    name, path, more, model, provider_name = case
    if name == "AnthropicGoogleCloud":
        more = {**more, "token_provider": lambda: "t0k3n"}
    client = client_of(drive, name, path, posthog_client=sink, **more).with_options(timeout=9)
    asked = {**ASK, "model": model, "posthog_distinct_id": "u1"}
    drive.call(lambda: client.messages.create(**asked))
    drive.collect(lambda: client.messages.create(**asked, stream=True))
    drive.call(lambda: client.beta.messages.create(**asked))
    events = sink.wait_for(3)
    for event in events:
        assert event.distinct_id == "u1"
        assert event.properties["$ai_provider"] == provider_name
        assert event.properties["$ai_model"] == model
        assert event.properties["$ai_output_tokens"] == 3
        assert "t0k3n" not in json.dumps(dict(event.properties))
    assert [event.properties["$ai_stream"] for event in events] == [False, True, False]


@pytest.mark.parametrize(
    ("asked", "served", "provider", "fast", "recorded"),
    [
        ("claude-opus-4-6", "claude-opus-4-6", "anthropic", True, "claude-opus-4-6-fast"),
        ("claude-opus-4-6-20260205", None, "anthropic", True, "claude-opus-4-6-fast"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "anthropic", False, None),
        ("us.anthropic.claude-opus-4-5-v1:0", "claude-opus-4-5", "bedrock", False, None),
        (
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
            "claude-opus-4-5",
            "bedrock",
            False,
            "claude-opus-4-5",
        ),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-5-v1:0",
            "claude-opus-4-5",
            "bedrock",
            False,
            None,
        ),
        ("my-deployment", "claude-opus-4-5", "azure", False, "claude-opus-4-5"),
    ],
)
def test_priced_names(
    asked: str, served: str | None, provider: str, fast: bool, recorded: str | None
) -> None:
    assert priced_name(asked, served, provider, fast=fast) == (recorded or asked)


def test_hosts() -> None:
    assert provider_of("https://api.anthropic.com") == "anthropic"
    assert provider_of("https://proxy.corp", "anthropic") == "anthropic"
    assert provider_of("https://us-east5-aiplatform.googleapis.com/v1") == "vertex"
    assert provider_of("https://aiplatform.eu.rep.googleapis.com/v1") == "vertex"
    assert provider_of("https://bedrock-mantle.us-east-1.api.aws/anthropic") == "bedrock"
    assert regional("vertex", "asia-east1") == "vertex"
    assert regional("anthropic", "us-east-1") == "anthropic"


# -- batches -----------------------------------------------------------------------------------


def results(count: int, more: int = 0) -> bytes:
    """Return a batch's results; each has `more` bytes beside, which do not compress well."""
    usage = {**MESSAGE["usage"], "service_tier": "batch"}
    lines: list[Any] = [
        {
            "custom_id": f"r{number}",
            "result": {
                "type": "succeeded",
                "message": {**MESSAGE, "id": f"msg_{number}", "usage": usage},
            },
            "more": random.Random(number).randbytes(more // 2).hex(),
        }
        for number in range(count)
    ]
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    lines.append({"custom_id": "bad", "result": {"type": "errored", "error": error}})
    lines += [{"custom_id": k, "result": {"type": k}} for k in ("canceled", "expired")]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def script_batch(provider: ScriptedProvider, name: str, body: bytes, encoding: str) -> None:
    url = f"{provider.url}/v1/messages/batches/{name}/results"
    when = "2026-01-01T00:00:00Z"
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    batch = {
        "id": name,
        "type": "message_batch",
        "processing_status": "ended",
        "results_url": url,
        "request_counts": counts,
        "created_at": when,
        "expires_at": when,
    }
    headers = {"content-type": "application/binary"}
    if encoding:
        headers["content-encoding"] = encoding
        body = gzip.compress(body)
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    provider.script(f"/messages/batches/{name}", Reply.json(batch))
    provider.script(f"/messages/batches/{name}/results", Reply(pieces, headers=headers))


@pytest.mark.parametrize(("encoding", "count"), [("", 2), ("gzip", 2), ("gzip", 35)])
def test_batch_is_captured_request_by_request_and_once(
    drive: Driver, sink: MemorySink, encoding: str, count: int
) -> None:
    more = 100_000 if count > 2 else 0  # several parts, each handed over as it came
    name = f"msgbatch_{encoding}_{count}_{type(drive).__name__}"
    client = drive.ours(posthog_client=sink)
    for _ in range(2):
        script_batch(drive.provider, name, results(count, more), encoding)
        read = drive.collect(
            lambda: client.messages.batches.results(name, posthog_distinct_id="u1")
        )
        assert len(read) == count + 3
    events = sink.wait_for(count + 1)
    assert len({event.uuid for event in events}) == count + 1
    first, last = events[0], events[-1]
    assert first.distinct_id == "u1"
    # PostHog's book has the batch price of Claude models under names like this one.
    assert first.properties["$ai_model"] == "claude-sonnet-4-5:batch"
    assert first.properties["posthog_llm_served_model"] == "claude-sonnet-4-5-20250929"
    assert "$ai_total_cost_usd" not in first.properties
    assert first.properties["$ai_service_tier"] == "batch"
    assert first.properties["$ai_model_parameters"] == {"custom_id": "r0"}
    assert first.properties["$ai_output_choices"] == [{"role": "assistant", "content": SAID}]
    assert first.properties["posthog_llm_endpoint"] == "message_batch"
    assert "$ai_latency" not in first.properties
    assert failure_of(last.properties) == {
        "type": "invalid_request_error",
        "code": "invalid_request_error",
        "message": "no",
    }


def test_results_that_cannot_be_fetched_are_no_event(drive: Driver, sink: MemorySink) -> None:
    script_batch(drive.provider, "msgbatch_gone", b"", "")
    path = "/messages/batches/msgbatch_gone/results"
    drive.provider._scripts[path].clear()
    drive.provider.script(path, Reply.json({"type": "error", "error": {"type": "x"}}, 500))
    client = drive.ours(posthog_client=sink)
    with pytest.raises(sdk.InternalServerError):
        drive.call(lambda: client.messages.batches.results("msgbatch_gone"))
    sink.wait_for(0)


# -- tools, middleware and the SDK's own tracing --------------------------------------------------


@pytest.mark.skipif(not hasattr(sdk, "beta_tool"), reason="this SDK has no tool runner")
@pytest.mark.parametrize("stream", [False, True])
def test_turns_of_a_tool_runner_share_a_trace(
    provider: ScriptedProvider, sink: MemorySink, stream: bool
) -> None:
    @sdk.beta_tool
    def get_weather(city: str) -> str:
        """Tell the weather."""
        return f"sun in {city}"

    client = SyncDriver(provider, ANTHROPIC).ours(posthog_client=sink)

    def run(**more: Any) -> None:
        runner = client.beta.messages.tool_runner(**ASK, tools=[get_weather], stream=stream, **more)
        for turn in runner:
            if stream:
                list(turn)

    run(posthog_distinct_id="u1")
    run(posthog_trace_id="mine")
    with posthog_llm.context(trace_id="around"):
        run()
    first, second, *rest = sink.wait_for(6)
    assert first.properties["$ai_trace_id"] == second.properties["$ai_trace_id"]
    assert first.distinct_id == second.distinct_id == "u1"
    assert first.properties["$ai_stop_reason"] == "tool_use"
    assert [e.properties["$ai_trace_id"] for e in rest] == ["mine", "mine", "around", "around"]


@pytest.mark.skipif(not hasattr(sdk, "Middleware"), reason="this SDK has no middleware")
def test_middleware_and_retries_are_one_event(provider: ScriptedProvider, sink: MemorySink) -> None:
    seen: list[int] = []

    def middleware(request: Any, call_next: Callable[[Any], Any]) -> Any:
        response = call_next(request)
        seen.append(response.status_code)
        return response

    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    provider.script("/messages", Reply.json(overloaded, 529, **{"retry-after-ms": "1"}))
    client = SyncDriver(provider, ANTHROPIC).ours(
        posthog_client=sink, max_retries=2, middleware=[middleware]
    )
    message = client.messages.create(**ASK)
    assert message.content[0].text == "You said: weather?"
    assert seen == [529, 200]
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_retries"] == 1
    assert event.properties["$ai_http_status"] == 200
    assert "$ai_is_error" not in event.properties


def test_sdks_own_spans_stay_as_they_were(drive: Driver, sink: MemorySink) -> None:
    if tuple(map(int, sdk.__version__.split(".")[:2])) < (1, 17):
        pytest.skip("this SDK does not trace itself")
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason="OpenTelemetry is an extra")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    def spans(client: Callable[..., Any], **more: Any) -> list[Any]:
        exporter = InMemorySpanExporter()
        tracing = trace.TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(exporter))
        made = client(open_telemetry={"tracer_provider": tracing}, **more)
        drive.call(lambda: made.messages.create(**ASK))
        drive.collect(lambda: made.messages.create(**ASK, stream=True))
        gc.collect()
        return [
            (s.name, s.status.status_code, dict(s.attributes)["gen_ai.usage.output_tokens"])
            for s in exporter.get_finished_spans()
        ]

    bare = spans(drive.bare)
    assert len(bare) == 2
    assert spans(drive.ours, posthog_client=sink) == bare
    assert len(sink.wait_for(2)) == 2
