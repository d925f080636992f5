"""Gemini: Google's SDK, its content and numbers, plain and streamed, sync and async."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import saying

genai = pytest.importorskip("google.genai", reason="Google's SDK is not installed")
from posthog_llm import gemini as ours  # noqa: E402 - needs Google's SDK

WIRE = Path(__file__).parent / "wire" / "gemini"
CONTENT = json.loads((WIRE / "content.json").read_text())
SSE = (WIRE / "content.sse").read_bytes()
MODEL = "gemini-3-flash-preview"
PLAIN, STREAM = f"/models/{MODEL}:generateContent", f"/models/{MODEL}:streamGenerateContent"
ASK: dict[str, Any] = {"model": MODEL, "contents": "weather?"}
SAID = [
    {"type": "thinking", "thinking": "**Weather**\n\nI need the forecast, so I search."},
    {"type": "executable_code", "language": "PYTHON", "code": "print(20 + 3)"},
    {"type": "code_execution_result", "outcome": "OUTCOME_OK", "output": "23\n"},
    {"type": "text", "text": "It is 23 degrees in Lisbon."},
    {
        "type": "function",
        "id": "call-1",
        "function": {"name": "get_weather", "arguments": {"city": "Lisbon", "days": [1, 2]}},
    },
]
GROUNDING = {
    "queries": ["weather Lisbon", "Lisbon forecast"],
    "sources": [
        {
            "uri": "https://vertexaisearch.cloud.google.com/grounding-api-redirect/AUZ",
            "title": "ipma.pt",
        }
    ],
}
TOLD = {
    "$ai_lib": "posthog-llm",
    "$ai_provider": "gemini",
    "$ai_model": MODEL,
    "posthog_llm_requested_model": MODEL,
    "posthog_llm_served_model": MODEL,
    "$ai_model_parameters": {},
    "$ai_http_status": 200,
    "$ai_stop_reason": "STOP",
    "$ai_input": [{"role": "user", "content": [{"type": "text", "text": "weather?"}]}],
    "$ai_output_choices": [{"role": "assistant", "content": SAID, "grounding": GROUNDING}],
    "$ai_input_tokens": 1034,
    "$ai_output_tokens": 57,
    "$ai_total_tokens": 1529,
    "$ai_reasoning_tokens": 438,
    "$ai_cache_read_input_tokens": 1000,
    "$ai_text_input_tokens": 776,
    "$ai_image_input_tokens": 258,
    "$ai_text_output_tokens": 57,
    "$ai_cache_reporting_exclusive": False,
    "$ai_tokens_source": "sdk",
    "$ai_web_search_count": 2,
    "$ai_usage": CONTENT["usageMetadata"],
    "posthog_llm_endpoint": "content",
    "posthog_llm_outcome": "ok",
    "posthog_llm_request_id": "req_test",
    "posthog_llm_response_id": "3w4Vad6yF-y1vdIP_q_zgAw",
    "posthog_llm_retries": 0,
}
VERSION = tuple(map(int, genai.__version__.split(".")[:2]))
OWN = {
    "$process_person_profile",
    "$ai_trace_id",
    "$ai_span_id",
    "$ai_base_url",
    "$ai_latency",
    "$ai_lib_version",
}
HTTP = ["httpx"]
try:
    import aiohttp  # noqa: F401

    HTTP.append("aiohttp")
except ImportError:
    pass


class Asking:
    """Makes clients for a scripted provider, and asks them, plainly or asynchronously."""

    def __init__(self, provider: ScriptedProvider, sink: MemorySink, how: str) -> None:
        self.provider, self.sink, self.how = provider, sink, how
        self.loop = asyncio.new_event_loop()
        self.clients: list[Any] = []
        """A client of Google's closes its connections when it is let go."""

    def client(self, module: Any = ours, **more: Any) -> Any:
        options: dict[str, Any] = {"base_url": self.provider.url}
        if self.how == "httpx":
            # What the SDK chooses aiohttp by is that this is missing.
            options["async_client_args"] = {"transport": _transport()}
        options.update(more.pop("http_options", {}))
        if module is ours:
            more = {"posthog_client": self.sink, **more}
        known = {"api_key": "AIzaSyTestKey12345", "http_options": options}
        self.clients.append(module.Client(**{**known, **more}))
        return self.clients[-1]

    def models(self, client: Any) -> Any:
        return client.models if self.how == "sync" else client.aio.models

    def chats(self, client: Any) -> Any:
        return client.chats if self.how == "sync" else client.aio.chats

    def call(self, method: Any, **asked: Any) -> Any:
        if self.how == "sync":
            return method(**asked)
        return self.loop.run_until_complete(method(**asked))

    def ask(self, client: Any, **more: Any) -> Any:
        return self.call(self.models(client).generate_content, **{**ASK, **more})

    def stream(self, client: Any, **more: Any) -> Any:
        return self.call(self.models(client).generate_content_stream, **{**ASK, **more})

    def items(self, stream: Any, most: int | None = None) -> list[Any]:
        if self.how == "sync":
            found = []
            for item in stream:
                found.append(item)
                if len(found) == most:
                    break
            return found

        async def read() -> list[Any]:
            found = []
            async for item in stream:
                found.append(item)
                if len(found) == most:
                    break
            return found

        return self.loop.run_until_complete(read())

    def settle(self) -> None:
        if self.how != "sync":
            # An event loop closes half-read async generators in tasks, one after another.
            self.loop.run_until_complete(asyncio.sleep(0.05))

    def close(self) -> None:
        self.clients.clear()
        gc.collect()
        self.settle()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


def on_vertex(asking: Asking, location: str = "us-central1") -> Any:
    """Return a client of Vertex, with a token of its own."""
    from google.auth.credentials import Credentials

    class Known(Credentials):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
            self.token = "ya29.a0AfTestToken12345678"

        def refresh(self, request: Any) -> None:
            raise AssertionError("it has not expired")

    more = {"project": "p", "location": location, "credentials": Known()}
    return asking.client(api_key=None, vertexai=True, **more)


def _transport() -> Any:
    import httpx

    return httpx.AsyncHTTPTransport()


@pytest.fixture(params=["sync", *HTTP])
def asking(
    request: pytest.FixtureRequest, provider: ScriptedProvider, sink: MemorySink
) -> Iterator[Asking]:
    made = Asking(provider, sink, request.param)
    yield made
    made.close()


def told(properties: Any) -> dict[str, Any]:
    """Return an event's properties that do not differ from run to run."""
    return {k: v for k, v in properties.items() if k not in OWN}


# -- what is told ------------------------------------------------------------------------


def test_plain_answer(asking: Asking) -> None:
    asking.provider.script(PLAIN, Reply.json(CONTENT))
    answer = asking.ask(asking.client())
    assert answer.candidates[0].content.parts[3].text == "It is 23 degrees in Lisbon."
    (event,) = asking.sink.wait_for(1)
    assert event.event == "$ai_generation"
    assert told(event.properties) == {**TOLD, "$ai_stream": False}


def test_stream_gives_the_event_of_a_plain_answer(asking: Asking) -> None:
    asking.provider.script(STREAM, Reply.stream([SSE], done=False))
    chunks = asking.items(asking.stream(asking.client()))
    assert "".join(part.text or "" for c in chunks for part in c.candidates[0].content.parts)
    (event,) = asking.sink.wait_for(1)
    first = event.properties["$ai_time_to_first_token"]
    assert 0 < first <= event.properties["$ai_latency"]
    rest = {k: v for k, v in told(event.properties).items() if k != "$ai_time_to_first_token"}
    assert rest == {**TOLD, "$ai_stream": True}


CITIES = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}


def test_request_is_told_as_people_read_it(asking: Asking) -> None:
    types = genai.types
    tools = [types.Tool(function_declarations=[{"name": "get_weather", "parameters": CITIES}])]
    contents = [
        types.Content(
            role="user",
            parts=[
                types.Part(text="What is this?"),
                types.Part.from_bytes(data=bytes(3000), mime_type="image/png"),
                types.Part.from_uri(file_uri="gs://bucket/a.mp4", mime_type="video/mp4"),
                types.Part.from_bytes(data=b"%PDF", mime_type="application/pdf"),
            ],
        ),
        types.Content(
            role="model",
            parts=[types.Part(function_call={"id": "c1", "name": "get_weather", "args": {"a": 1}})],
        ),
        types.Content(
            role="user",
            parts=[
                types.Part(
                    function_response={"id": "c1", "name": "get_weather", "response": {"t": 23}}
                )
            ],
        ),
    ]
    config = {
        "system_instruction": "Be brief.",
        "tools": tools,
        "temperature": 0.5,
        "max_output_tokens": 100,
        "stop_sequences": ["END"],
        "thinking_config": {"thinking_budget": 10, "include_thoughts": True},
        "safety_settings": [
            {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}
        ],
        "http_options": {"extra_body": {"unknown": "text"}},
    }
    asking.ask(asking.client(), contents=contents, config=config)
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_input"] == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "media_type": "image/png", "data": "[image/png, 3000 bytes]"},
                {"type": "video", "media_type": "video/mp4", "url": "gs://bucket/a.mp4"},
                {
                    "type": "file",
                    "media_type": "application/pdf",
                    "data": "[application/pdf, 4 bytes]",
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {
                    "type": "function",
                    "id": "c1",
                    "function": {"name": "get_weather", "arguments": {"a": 1}},
                }
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "tool_name": "get_weather",
                    "content": {"t": 23},
                }
            ],
        },
    ]
    assert event.properties["$ai_model_parameters"] == {
        "temperature": 0.5,
        "max_output_tokens": 100,
        "stop_sequences": ["END"],
        "thinking_config": {"thinking_budget": 10, "include_thoughts": True},
        "safety_settings": [
            {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}
        ],
    }
    (tool,) = event.properties["$ai_tools"]
    assert tool["functionDeclarations"][0]["name"] == "get_weather"


# -- numbers -----------------------------------------------------------------------------


def usage(**counts: Any) -> dict[str, Any]:
    return {"promptTokenCount": 10, "totalTokenCount": 30, "candidatesTokenCount": 20, **counts}


def answer(usage: Any = None, **more: Any) -> dict[str, Any]:
    candidate = {
        "content": {"role": "model", "parts": [{"text": "Hello."}]},
        "finishReason": "STOP",
        **more.pop("candidate", {}),
    }
    found = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", **more}
    return found if usage is None else {**found, "usageMetadata": usage}


def counts(provider: ScriptedProvider, sink: MemorySink, body: Any, **more: Any) -> Any:
    """Return the properties of the event of one answer."""
    model = more.pop("model", "gemini-2.5-flash")
    provider.script(f"/models/{model}:generateContent", Reply.json(body))
    client = Asking(provider, sink, "sync").client(**more)
    client.models.generate_content(model=model, contents="hi")
    (event,) = sink.wait_for(1)
    return event.properties


def test_unknown_is_absent(provider: ScriptedProvider, sink: MemorySink) -> None:
    found = counts(provider, sink, answer())
    assert not [name for name in found if "tokens" in name]


def test_kinds_of_an_unknown_input_are_absent(provider: ScriptedProvider, sink: MemorySink) -> None:
    kinds = [{"modality": "TEXT", "tokenCount": 9}]
    found = counts(provider, sink, answer({"promptTokensDetails": kinds}))
    assert not [name for name in found if "tokens" in name and name != "$ai_tokens_source"]


def test_output_that_the_api_leaves_out_is_zero(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    body = answer(
        {"promptTokenCount": 10, "thoughtsTokenCount": 15, "totalTokenCount": 25},
        candidate={"finishReason": "MAX_TOKENS", "content": {"role": "model"}},
    )
    found = counts(provider, sink, body)
    assert (found["$ai_input_tokens"], found["$ai_output_tokens"]) == (10, 0)
    assert found["$ai_reasoning_tokens"] == 15
    assert found["$ai_stop_reason"] == "MAX_TOKENS"
    assert found["$ai_output_choices"] == []
    assert "$ai_is_error" not in found


def test_thoughts_are_output_where_posthog_does_not_add_them(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    body = answer(usage(thoughtsTokenCount=5, totalTokenCount=35), modelVersion="gemini-exp")
    found = counts(provider, sink, body, model="gemini-exp")
    assert found["$ai_output_tokens"] == 25


def test_results_of_searches_are_not_charged_as_input(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    grounding = {"webSearchQueries": ["a", "b"]}
    body = answer(
        usage(toolUsePromptTokenCount=100, totalTokenCount=130),
        candidate={"groundingMetadata": grounding},
    )
    found = counts(provider, sink, body)
    assert (found["$ai_input_tokens"], found["$ai_output_tokens"]) == (10, 20)
    assert "$ai_reasoning_tokens" not in found
    assert found["$ai_web_search_count"] == 1  # this model is charged by prompt


def test_a_total_without_the_results_of_tools(provider: ScriptedProvider, sink: MemorySink) -> None:
    found = counts(provider, sink, answer(usage(toolUsePromptTokenCount=300)))
    assert (found["$ai_input_tokens"], found["$ai_total_tokens"]) == (10, 30)


def test_several_searches_of_an_unknown_model(provider: ScriptedProvider, sink: MemorySink) -> None:
    """Older models are charged by prompt, newer ones by query."""
    searched = {"groundingMetadata": {"webSearchQueries": ["a", "b"]}}
    body = answer(usage(), candidate=searched, modelVersion=None)
    assert "$ai_web_search_count" not in counts(provider, sink, body)


def test_arguments_of_a_function_that_come_in_pieces(asking: Asking) -> None:
    """https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling"""
    pieces: list[dict[str, Any]] = [
        {"name": "weather", "willContinue": True},
        {
            "partialArgs": [{"jsonPath": "$.city", "stringValue": "Ro", "willContinue": True}],
            "willContinue": True,
        },
        {
            "partialArgs": [
                {"jsonPath": "$.city", "stringValue": "me"},
                {"jsonPath": "$.days", "numberValue": 2},
            ],
            "willContinue": True,
        },
        {},
        {"name": "time", "args": {}},
    ]
    parts = [{"functionCall": piece} for piece in pieces]
    events = [answer(candidate={"content": {"role": "model", "parts": [part]}}) for part in parts]
    lines = [f"data: {json.dumps(event)}\r\n\r\n".encode() for event in events]
    asking.provider.script(
        "/models/gemini-2.5-flash:streamGenerateContent",
        Reply(lines, headers={"content-type": "text/event-stream"}),
    )
    asking.items(asking.stream(asking.client(), model="gemini-2.5-flash"))
    (event,) = asking.sink.wait_for(1)
    (message,) = event.properties["$ai_output_choices"]
    assert [block["function"] for block in message["content"]] == [
        {"name": "weather", "arguments": {"city": "Rome", "days": 2}},
        {"name": "time", "arguments": {}},
    ]


def test_content_of_urls_is_charged_as_input(provider: ScriptedProvider, sink: MemorySink) -> None:
    urls = {"urlMetadata": [{"retrievedUrl": "https://example.com"}]}
    body = answer(
        usage(toolUsePromptTokenCount=100, totalTokenCount=130),
        candidate={"urlContextMetadata": urls},
    )
    found = counts(provider, sink, body)
    assert (found["$ai_input_tokens"], found["$ai_total_tokens"]) == (110, 130)
    assert "$ai_web_search_count" not in found


def test_modalities(provider: ScriptedProvider, sink: MemorySink) -> None:
    def of(**tokens: int) -> list[Any]:
        return [{"modality": kind, "tokenCount": n} for kind, n in tokens.items()]

    body = answer(
        usage(
            promptTokensDetails=of(TEXT=4, AUDIO=6),
            cacheTokensDetails=of(AUDIO=2),
            candidatesTokensDetails=of(TEXT=3, IMAGE=17),
            cachedContentTokenCount=2,
        )
    )
    found = counts(provider, sink, body)
    assert found["$ai_audio_input_tokens"] == 6
    assert found["$ai_cache_read_audio_tokens"] == 2
    assert found["$ai_image_output_tokens"] == 17
    assert found["$ai_text_output_tokens"] == 3


@pytest.mark.filterwarnings("ignore:.* is not a valid TrafficType")  # by the oldest SDKs
@pytest.mark.parametrize(
    ("location", "provider_name"),
    [
        ("global", "google-vertex-global"),
        ("us-central1", "google-vertex-us"),
        ("europe-west4", "google-vertex-europe"),
        ("asia-east1", "vertex"),
    ],
)
def test_vertex(
    provider: ScriptedProvider, sink: MemorySink, location: str, provider_name: str
) -> None:
    client = on_vertex(Asking(provider, sink, "sync"), location)
    place = f"/projects/p/locations/{location}/publishers/google/models/gemini-2.5-flash"
    body = answer(usage(trafficType="ON_DEMAND_PRIORITY"))
    provider.script(f"{place}:generateContent", Reply.json(body))
    client.models.generate_content(model="gemini-2.5-flash", contents="hi")
    (event,) = sink.wait_for(1)
    assert event.properties["$ai_provider"] == provider_name
    assert event.properties["$ai_model"] == "gemini-2.5-flash"
    assert event.properties["$ai_service_tier"] == "priority"
    assert "ya29" not in json.dumps(dict(event.properties))


# -- endings -----------------------------------------------------------------------------


def test_blocked_prompt_is_an_answer_without_output(asking: Asking) -> None:
    blocked = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 8, "totalTokenCount": 8},
        "modelVersion": MODEL,
    }
    asking.provider.script(PLAIN, Reply.json(blocked))
    asking.provider.script(STREAM, Reply.stream([blocked], done=False))
    client = asking.client()
    asking.ask(client)
    asking.items(asking.stream(client))
    for event in asking.sink.wait_for(2):
        assert "$ai_is_error" not in event.properties
        assert event.properties["posthog_llm_outcome"] == "ok"
        assert event.properties["$ai_stop_reason"] == "PROHIBITED_CONTENT"
        assert event.properties["$ai_output_choices"] == []
        assert event.properties["$ai_input_tokens"] == 8
        assert event.properties["$ai_output_tokens"] == 0


def test_blocked_answer_tells_by_what(provider: ScriptedProvider, sink: MemorySink) -> None:
    rating = {"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH", "blocked": True}
    stopped = {"finishReason": "SAFETY", "safetyRatings": [rating], "content": {}}
    found = counts(provider, sink, answer(usage(), candidate=stopped))
    assert found["$ai_stop_reason"] == "SAFETY"
    (said,) = found["$ai_output_choices"]
    assert said["safety_ratings"] == [rating]
    assert "$ai_is_error" not in found


ERROR = {
    "error": {
        "code": 429,
        "message": "Resource exhausted",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT"}],
    }
}


def test_error(asking: Asking) -> None:
    asking.provider.script(PLAIN, Reply.json(ERROR, 429))
    with pytest.raises(genai.errors.ClientError):
        asking.ask(asking.client())
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["$ai_http_status"] == 429
    assert "RATE_LIMIT" in event.properties["$ai_error"]
    assert event.properties["posthog_llm_error"] == {
        "type": "ClientError",
        "status": 429,
        "code": "RESOURCE_EXHAUSTED",
    }
    assert event.properties["$ai_output_choices"] == []
    assert not [name for name in event.properties if name.endswith("_tokens")]


def test_error_before_a_stream(asking: Asking) -> None:
    asking.provider.script(STREAM, Reply.json(ERROR, 429))
    with pytest.raises(genai.errors.ClientError):
        asking.items(asking.stream(asking.client()))
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_http_status"] == 429


def test_error_within_a_stream(asking: Asking) -> None:
    begun = answer(candidate={"finishReason": None})
    asking.provider.script(STREAM, Reply.stream([begun, ERROR], done=False))
    with pytest.raises(genai.errors.ClientError):
        asking.items(asking.stream(asking.client()))
    asking.settle()
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["posthog_llm_error"]["code"] == "RESOURCE_EXHAUSTED"
    assert event.properties["$ai_output_choices"] == saying("Hello.")


def test_error_within_a_stream_can_be_pickled_as_the_bare_sdks(
    provider: ScriptedProvider, sink: MemorySink
) -> None:
    asking = Asking(provider, sink, "sync")

    def pickled(module: Any) -> Any:
        begun = answer(candidate={"finishReason": None})
        provider.script(STREAM, Reply.stream([begun, ERROR], done=False))
        with pytest.raises(genai.errors.ClientError) as raised:
            asking.items(asking.stream(asking.client(module)))
        try:
            again = pickle.loads(pickle.dumps(raised.value))
        except Exception as error:
            return type(error), str(error)
        return type(again), str(again), type(again.response).__name__, sorted(vars(again.response))

    assert pickled(ours) == pickled(genai)


def test_connection_error(asking: Asking) -> None:
    client = asking.client()
    asking.provider.stop()
    # Without options of its own, the SDK waits up to ten seconds and tries again.
    config = {"http_options": {"retry_options": {"attempts": 1}}}
    with pytest.raises(Exception) as raised:
        asking.ask(client, config=config)
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_http_status"] == 0
    assert event.properties["$ai_error_type"] == type(raised.value).__name__
    asking.provider.start()


def test_timeout(asking: Asking) -> None:
    if asking.how == "aiohttp" and VERSION < (1, 75):
        pytest.skip("this version of the SDK ignores the option with aiohttp")
    asking.provider.script(PLAIN, Reply.json(CONTENT, delay=2))
    with pytest.raises(Exception):  # noqa: B017 - of any HTTP library
        asking.ask(asking.client(), config={"http_options": {"timeout": 200}})
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert "Timeout" in event.properties["$ai_error_type"]


def test_cut_off_stream(asking: Asking) -> None:
    begun = answer(usage(), candidate={"finishReason": None})
    asking.provider.script(STREAM, Reply.stream([begun], done=False, cut=True))
    with pytest.raises(Exception):  # noqa: B017 - of any HTTP library
        asking.items(asking.stream(asking.client()))
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_is_error"] is True
    assert event.properties["$ai_output_choices"] == saying("Hello.")


def test_answer_that_the_sdk_cannot_read(asking: Asking) -> None:
    asking.provider.script(PLAIN, Reply([b'{"candidates": [']), Reply([b""]))
    client = asking.client()
    with pytest.raises(ValueError) as raised:
        asking.ask(client)
    asking.ask(client)  # of an empty answer it makes an empty object
    broken, empty = asking.sink.wait_for(2)
    assert broken.properties["$ai_error_type"] == type(raised.value).__name__
    assert broken.properties["$ai_http_status"] == 200
    assert "$ai_is_error" not in empty.properties


def test_stream_that_the_sdk_cannot_read(asking: Asking) -> None:
    begun = answer(usage(), candidate={"finishReason": None})
    pieces = [begun, b'data: {"candidates": [\n\n', answer(usage())]
    asking.provider.script(STREAM, Reply.stream(pieces, done=False))
    with pytest.raises(genai.errors.UnknownApiResponseError):
        asking.items(asking.stream(asking.client()))
    asking.settle()
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_error_type"] == "JSONDecodeError"
    assert event.properties["$ai_output_choices"] == saying("Hello.")


def test_stream_that_ends_before_the_answer(asking: Asking) -> None:
    begun = answer(candidate={"finishReason": None})
    asking.provider.script(STREAM, Reply.stream([begun], done=False))
    asking.items(asking.stream(asking.client()))
    (event,) = asking.sink.wait_for(1)
    assert event.properties["$ai_error_type"] == "IncompleteStream"


def test_stream_closed_early(asking: Asking) -> None:
    asking.provider.script(STREAM, Reply.stream([SSE], done=False, delay=0.01))
    stream = asking.stream(asking.client())
    assert len(asking.items(stream, most=1)) == 1
    if asking.how == "sync":
        stream.close()
    else:
        asking.loop.run_until_complete(stream.aclose())
    asking.settle()
    (event,) = asking.sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "closed_early"
    assert "$ai_output_tokens" not in event.properties
    assert "$ai_total_tokens" not in event.properties
    assert event.properties["$ai_input_tokens"] == 1034


def test_stream_let_go_is_captured_without_the_garbage_collector(asking: Asking) -> None:
    asking.provider.script(STREAM, Reply.stream([SSE], done=False))
    client = asking.client()
    gc.collect()
    gc.disable()
    try:
        stream = asking.stream(client)
        assert len(asking.items(stream, most=1)) == 1
        del stream
        asking.settle()
        (event,) = asking.sink.wait_for(1)
    finally:
        gc.enable()
    assert event.properties["posthog_llm_outcome"] in ("closed_early", "dropped")


def test_stream_never_read_asks_nothing(asking: Asking) -> None:
    """The SDK sends a stream's request when its first item is read."""
    stream = asking.stream(asking.client())
    del stream
    asking.settle()
    asking.sink.wait_for(0)
    assert asking.provider.requests == []


def test_cancelled(provider: ScriptedProvider, sink: MemorySink) -> None:
    asking = Asking(provider, sink, HTTP[-1])
    provider.script(PLAIN, Reply.json(CONTENT, delay=5))

    async def cancel() -> None:
        client = asking.client()
        task = asyncio.ensure_future(client.aio.models.generate_content(**ASK))
        while not provider.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asking.loop.run_until_complete(cancel())
    (event,) = sink.wait_for(1)
    assert event.properties["posthog_llm_outcome"] == "cancelled"
    assert "$ai_is_error" not in event.properties
    asking.close()


def test_retries_are_counted(asking: Asking) -> None:
    busy = {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}
    asking.provider.script(PLAIN, Reply.json(busy, 503), Reply.json(CONTENT))
    retry = {"attempts": 3, "initial_delay": 0.01, "max_delay": 0.02}
    asking.ask(asking.client(http_options={"retry_options": retry}))
    (event,) = asking.sink.wait_for(1)
    assert event.properties["posthog_llm_retries"] == 1
    assert event.properties["$ai_http_status"] == 200
    assert event.properties["posthog_llm_outcome"] == "ok"


# -- nothing else ------------------------------------------------------------------------


def test_what_runs_no_model_is_not_captured(asking: Asking) -> None:
    client = asking.client()
    counted = asking.call(asking.models(client).count_tokens, **ASK)
    assert counted.total_tokens == 9
    asking.provider.script("/cachedContents", Reply.json({"name": "cachedContents/1"}))
    caches = client.caches if asking.how == "sync" else client.aio.caches
    asking.call(caches.create, model=MODEL, config={"contents": "long"})
    asking.sink.wait_for(0)


@pytest.mark.parametrize("streamed", [False, True])
def test_answer_is_the_bare_sdks(asking: Asking, streamed: bool) -> None:
    def run(module: Any) -> Any:
        client = asking.client(module)
        asking.provider.script(PLAIN, Reply.json(CONTENT))
        asking.provider.script(STREAM, Reply.stream([SSE], done=False))
        found = asking.items(asking.stream(client)) if streamed else [asking.ask(client)]
        asking.provider._scripts.clear()
        return [(type(item), item.model_dump(exclude={"sdk_http_response"})) for item in found]

    assert run(ours) == run(genai)
    bare, own = asking.provider.requests[-2:]
    assert (bare.path, bare.body) == (own.path, own.body)
    assert {**bare.headers, "user-agent": ""} == {**own.headers, "user-agent": ""}


def test_keys_never_leave(asking: Asking) -> None:
    refused = {
        "error": {"code": 400, "message": "API key AIzaSyTestKey12345 not valid", "status": "X"}
    }
    asking.provider.script(PLAIN, Reply.json(refused, 400))
    with pytest.raises(genai.errors.ClientError):
        asking.ask(asking.client())
    (event,) = asking.sink.wait_for(1)
    assert "AIzaSyTestKey12345" not in json.dumps(dict(event.properties))
    assert "not valid" in event.properties["$ai_error"]


def test_privacy(asking: Asking) -> None:
    asking.provider.script(PLAIN, Reply.json(CONTENT))
    config = {"stop_sequences": ["secret"], "temperature": 0.5, "system_instruction": "secret"}
    asking.ask(asking.client(posthog_privacy_mode=True), config=config)
    (event,) = asking.sink.wait_for(1)
    text = json.dumps(dict(event.properties))
    for word in ("secret", "weather?", "Lisbon", "forecast", "ipma", "get_weather"):
        assert word not in text
    assert event.properties["$ai_model_parameters"] == {"temperature": 0.5}
    assert event.properties.get("$ai_input") is None
    assert event.properties["$ai_input_tokens"] == 1034


def test_flush_of_the_package(provider: ScriptedProvider, sink: MemorySink) -> None:
    client = Asking(provider, sink, "sync").client()
    client.models.generate_content(**ASK)
    posthog_llm.flush(5)
    assert len(sink.events) == 1
