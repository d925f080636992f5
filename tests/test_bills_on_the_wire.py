"""What is charged for each kind of call, as PostHog needs it told: through the SDKs' own clients.

A file of `tests/wire/bills` has an answer, plain and as a stream, and of each of its events every
property that decides the bill; what it does not name is absent. `charged` says what the provider
takes for it: the price list, in USD a million, and the sum.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import posthog_llm.anthropic
import posthog_llm.openai
from posthog_llm.testing import CapturedEvent, MemorySink, Reply, ScriptedProvider

from .driving import AsyncDriver, Driver, SyncDriver

HTTP: Any = next(sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules)
RECORDED = sorted((Path(__file__).parent / "wire" / "bills").glob("*.json"))
DECISIVE = {
    *("$ai_provider", "$ai_model", "$ai_service_tier", "$ai_cache_reporting_exclusive"),
    *("$ai_web_search_count", "$ai_cost_passthrough", "$ai_request_cost_usd"),
    *("$ai_total_cost_usd", "$ai_input_cost_usd", "$ai_output_cost_usd"),
    *("posthog_llm_requested_model", "posthog_llm_served_model", "posthog_llm_inference_geo"),
    *("posthog_llm_containers", "posthog_llm_file_searches", "posthog_llm_reasoning_tokens"),
}
VARIES = {
    *("$ai_stream", "$ai_latency", "$ai_time_to_first_token", "$ai_model_parameters"),
    *("$ai_trace_id", "$ai_span_id", "$ai_parent_id"),
}
"""Properties in which a stream differs from a plain answer, or a call from the next."""
ASK: dict[str, Callable[..., Any]] = {
    "chat": lambda client, **more: client.chat.completions.create(messages=[], **more),
    "response": lambda client, **more: client.responses.create(input="hi", **more),
    "embedding": lambda client, **more: client.embeddings.create(input="hi", **more),
    "message": lambda client, **more: client.messages.create(max_tokens=9, messages=[], **more),
}


def counted(event: CapturedEvent) -> dict[str, Any]:
    return {
        name: value
        for name, value in event.properties.items()
        if name in DECISIVE or (name.endswith("_tokens") and name != "$ai_total_tokens")
    }


def answer(recorded: dict[str, Any]) -> Callable[[Any], Any]:
    def handle(request: Any) -> Any:
        reply = Reply.json(recorded["answer"])
        if json.loads(request.content).get("stream"):
            named = recorded["endpoint"] == "message"
            events = [named_event(e) if named else e for e in recorded["stream"]]
            reply = Reply.stream(events, done=not named)
        headers = {**reply.headers, **recorded["headers"]}
        return HTTP.Response(200, headers=headers, content=b"".join(reply.body))

    return handle


def named_event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def events(drive: Driver, recorded: dict[str, Any], streamed: bool) -> list[CapturedEvent]:
    sink = MemorySink()
    kind = HTTP.AsyncClient if isinstance(drive, AsyncDriver) else HTTP.Client
    module = posthog_llm.anthropic if recorded["client"] == "Anthropic" else posthog_llm.openai
    more = {"api_version": "1"} if recorded["client"] == "AzureOpenAI" else {}
    client = getattr(module, f"{drive.prefix}{recorded['client']}")(
        api_key="k",
        base_url=recorded["base_url"],
        http_client=kind(transport=HTTP.MockTransport(answer(recorded))),
        posthog_client=sink,
        **more,
    )
    asked: dict[str, Any] = {"extra_body": recorded.get("request")}
    asked |= {"model": recorded["asked"]} if recorded["asked"] else {"prompt": {"id": "pmpt_1"}}
    if streamed:
        drive.collect(lambda: ASK[recorded["endpoint"]](client, **asked, stream=True))
    else:
        drive.call(lambda: ASK[recorded["endpoint"]](client, **asked))
    return sink.wait_for(len(recorded["told"]))


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
@pytest.mark.parametrize("driver", [SyncDriver, AsyncDriver])
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_bill(path: Path, driver: Any, provider: ScriptedProvider) -> None:
    drive = driver(provider)
    recorded = json.loads(path.read_text())
    plain = events(drive, recorded, streamed=False)
    assert [counted(event) for event in plain] == recorded["told"]
    assert not any(may_be_taken_for_total(event.properties) for event in plain)
    if recorded["stream"] is not None:
        streamed = events(drive, recorded, streamed=True)
        assert [shown(event) for event in streamed] == [shown(event) for event in plain]
    drive.close()


def may_be_taken_for_total(properties: Any) -> bool:
    """Newer ingestion takes the usage object's cost where no total is told."""
    usage = properties.get("$ai_usage") or {}
    return "cost" in usage and "$ai_total_cost_usd" not in properties


def shown(event: CapturedEvent) -> tuple[str, dict[str, Any]]:
    properties = event.properties
    return event.event, {k: v for k, v in properties.items() if k not in VARIES}
