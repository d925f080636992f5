"""Who is behind a gateway, under which name, and what it charged: plain and streamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posthog_llm import Price, configure
from posthog_llm import _event as event
from posthog_llm._exchange import Exchange, Scope
from posthog_llm._providers.gateways import GATEWAYS
from posthog_llm._providers.reading import read
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from . import gateways_page
from .driving import DRIVERS, Driver

RECORDED = sorted((Path(__file__).parent / "wire" / "gateways").glob("*.json"))


def found(recorded: dict[str, Any], streamed: bool) -> dict[str, Any]:
    base = {"id": "1", "object": "chat.completion", "created": 1, "model": recorded["served"]}
    base.update(recorded.get("body", {}))
    said = {"role": "assistant", "content": "Hello.", **recorded["message"]}
    choice = {"index": 0, "finish_reason": "stop"}
    usage = {"usage": recorded["usage"]}
    if streamed:
        chunks = [
            {**base, "choices": [{**choice, "delta": said}]},
            {**base, "choices": [], **usage},
        ]
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    else:
        body = json.dumps({**base, "choices": [{**choice, "message": said}], **usage})
    exchange = Exchange(
        endpoint="chat",
        id="00000000-0000-0000-0000-000000000001",
        scope=Scope(),
        started_at=1.0,
        base_url=recorded["base_url"],
        model=recorded["asked"],
        streamed=streamed,
        request=json.dumps({"model": recorded["asked"], "messages": []}).encode(),
        body=body.encode(),
        status=200,
        sent=recorded["sent"],
        headers={
            "content-type": "text/event-stream" if streamed else "application/json",
            **recorded["got"],
        },
    )
    return event.build(read(exchange), private=False).properties


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_gateway(path: Path, streamed: bool) -> None:
    recorded = json.loads(path.read_text())
    properties = found(recorded, streamed)
    assert properties["posthog_llm_requested_model"] == recorded["asked"]
    assert properties["posthog_llm_served_model"] == recorded["served"]
    counts = {
        "$ai_input_tokens": 1000,
        "$ai_output_tokens": 500,
        "$ai_cache_reporting_exclusive": False,
        **recorded["told"],
    }
    assert {name: properties.get(name) for name in counts} == counts


def test_every_gateway_has_its_answers() -> None:
    names = " ".join(path.stem for path in RECORDED)
    assert all(row.title.split()[0].lower() in names or "Hugging" in row.title for row in GATEWAYS)


def test_the_page_has_the_table() -> None:
    assert gateways_page.PAGE.read_text() == gateways_page.written()


def test_litellm_cost_on_the_wire(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": []}
    headers = {"x-litellm-call-id": "1", "x-litellm-response-cost": "0.0123"}
    reply = Reply.json({**body, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    reply.headers.update(headers)
    provider.script("/chat/completions", reply)
    client = drive.ours(posthog_client=sink)
    drive.ask(client)
    properties = sink.wait_for(1)[0].properties
    assert properties["$ai_total_cost_usd"] == 0.0123
    assert properties["$ai_cost_passthrough"] is True
    assert properties["$ai_model"] == "gpt-4o"


def test_a_price_applies_to_the_name_without_the_prefix_of_a_gateway(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    body = {"id": "c", "object": "chat.completion", "created": 1, "choices": [], "usage": usage}
    reply = Reply.json({**body, "model": "gpt-5-mini-2025-08-07"})
    reply.headers["x-portkey-provider"] = "openai"
    provider.script("/chat/completions", reply)
    configure(prices={"gpt-5-mini": Price(input=0.25, output=2)})
    try:
        client = drive.ours(posthog_client=sink, default_headers={"x-portkey-api-key": "k"})
        drive.ask(client, model="@openai-free/gpt-5-mini")
        properties = sink.wait_for(1)[0].properties
    finally:
        configure(prices=None)
    assert properties["$ai_model"] == "gpt-5-mini"
    assert properties["$ai_total_cost_usd"] == pytest.approx(0.000125)


def test_another_spelling_of_a_provider_is_ours(drive: Driver, sink: MemorySink) -> None:
    drive.ask(drive.ours(posthog_client=sink, posthog_provider_override="x-ai"))
    drive.ask(drive.ours(posthog_client=sink, posthog_provider_override="My-Proxy"))
    found = [event.properties["$ai_provider"] for event in sink.wait_for(2)]
    assert found == ["xai", "My-Proxy"]


@pytest.mark.parametrize("name", ["providerMetadata", "provider_metadata"])
@pytest.mark.parametrize("endpoint", ["embedding", "response"])
def test_vercels_cost_in_answers_of_other_kinds(endpoint: str, name: str) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1, "prompt_tokens": 1, "total_tokens": 2}
    body = {"model": "m", "usage": usage, name: {"gateway": {"cost": "0.0105"}}}
    exchange = Exchange(
        endpoint=endpoint,
        id="00000000-0000-0000-0000-000000000001",
        scope=Scope(),
        started_at=1.0,
        base_url="https://ai-gateway.vercel.sh/v1",
        body=json.dumps(body).encode(),
        status=200,
        headers={"content-type": "application/json"},
    )
    properties = event.build(read(exchange), private=False).properties
    assert properties["$ai_total_cost_usd"] == 0.0105
    assert properties["$ai_cost_passthrough"] is True


@pytest.mark.parametrize("kind", ["Anthropic sync", "Anthropic async"])
def test_openrouter_through_anthropics_sdk(
    kind: str, sink: MemorySink, provider: ScriptedProvider
) -> None:
    usage: dict[str, Any] = {"input_tokens": 10, "output_tokens": 5, "cost": 0.01, "is_byok": True}
    usage["cost_details"] = {"upstream_inference_cost": 0.2}
    body = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
    provider.script("/messages", Reply.json({**body, "stop_reason": "end_turn", "usage": usage}))
    driver = DRIVERS[kind](provider)
    client = driver.ours(posthog_client=sink, posthog_provider_override="openrouter")
    driver.ask(client)
    properties = sink.wait_for(1)[0].properties
    driver.close()
    assert properties["$ai_total_cost_usd"] == pytest.approx(0.21)
    assert properties["$ai_cost_passthrough"] is True
    assert properties["$ai_cache_reporting_exclusive"] is True


def test_the_callers_prices_win_over_what_is_reported(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.5}
    provider.script("/chat/completions", Reply.json({**body, "usage": usage}))
    prices = {"$ai_input_token_price": 1e-6, "$ai_output_token_price": 2e-6}
    client = drive.ours(posthog_client=sink, posthog_properties=prices)
    drive.ask(client)
    properties = sink.wait_for(1)[0].properties
    assert prices.items() <= properties.items()
    assert not {"$ai_total_cost_usd", "$ai_cost_passthrough"} & properties.keys()
    assert properties["$ai_usage"] == {"prompt_tokens": 1, "completion_tokens": 1}
