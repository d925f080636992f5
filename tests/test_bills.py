"""Counts that PostHog's cost code makes the true bill of, whoever reports them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from posthog_llm import _event as event
from posthog_llm._exchange import Exchange, Scope
from posthog_llm._providers.reading import read as read_exchange
from posthog_llm._providers.usage import normalized, read

GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"
GATEWAY = "https://llm.example.com/v1"
ID = "00000000-0000-0000-0000-000000000001"


def events(endpoint: str, body: Any, model: str, base_url: str = GATEWAY) -> list[dict[str, Any]]:
    exchange = Exchange(
        endpoint=endpoint,
        id=ID,
        scope=Scope(),
        started_at=1.0,
        base_url=base_url,
        request=json.dumps({"model": model, "input": "hi"}).encode(),
        body=json.dumps(body).encode(),
        status=200,
        headers={"content-type": "application/json"},
    )
    return [e.properties for e in event.builds(read_exchange(exchange), private=False)]


@pytest.mark.parametrize(
    ("model", "base_url", "total", "output", "reasoning", "kept"),
    [
        ("gemini-2.5-pro", GOOGLE, 180, 50, 30, None),
        ("google/gemini-3.1-pro", GATEWAY, 180, 50, 30, None),
        ("gemini-2.5-pro", GATEWAY, 150, 50, None, 30),
        ("gemini-2.5-pro", GOOGLE, 150, 50, None, 30),
        ("gemini-flash-latest", GOOGLE, 180, 80, 30, None),
        ("gemini-flash-latest", GATEWAY, 150, 50, 30, None),
        ("grok-4", GATEWAY, 180, 80, 30, None),
        ("gpt-5", GATEWAY, 150, 50, 30, None),
    ],
)
def test_reasoning(
    model: str, base_url: str, total: int, output: int, reasoning: Any, kept: Any
) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": total,
        "completion_tokens_details": {"reasoning_tokens": 30},
    }
    (properties,) = events("chat", {"model": model, "choices": [], "usage": usage}, model, base_url)
    assert properties["$ai_output_tokens"] == output
    assert properties.get("$ai_reasoning_tokens") == reasoning
    assert properties.get("posthog_llm_reasoning_tokens") == kept


@pytest.mark.parametrize(
    ("usage", "properties"),
    [
        # Portkey's, of Claude on Vertex: the total has the cached tokens, the input has not.
        (
            {"prompt_tokens": 20, "completion_tokens": 100, "total_tokens": 50_120}
            | {"prompt_tokens_details": {"cached_tokens": 50_000}},
            {"input": 20, "output": 100, "cache_read_input": 50_000, "exclusive": True},
        ),
        (
            {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1900}
            | {"prompt_tokens_details": {"cached_tokens": 800}},
            {"input": 1000, "output": 100, "cache_read_input": 800, "exclusive": True},
        ),
        # https://help.aliyun.com/en/model-studio/context-cache
        (
            {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
            | {"prompt_tokens_details": {"cache_creation_input_tokens": 900}},
            {"input": 1000, "output": 100, "cache_creation_input": 900, "exclusive": False},
        ),
        (
            {"prompt_tokens": "1000", "completion_tokens": 0, "output_tokens": "7"},
            {"input": 1000, "output": 7, "exclusive": False},
        ),
        (
            {"prompt_tokens": 900, "completion_tokens": 1, "prompt_cache_hit_tokens": 800}
            | {"prompt_tokens_details": {"cached_tokens": 0}},
            {"input": 900, "output": 1, "cache_read_input": 800, "exclusive": False},
        ),
    ],
    ids=["all apart", "apart by the total", "written", "text", "0 beside a count"],
)
def test_counts_of_gateways(usage: dict[str, Any], properties: dict[str, Any]) -> None:
    served = {"model": "claude-sonnet-4-6", "choices": [], "usage": usage}
    (event,) = events("chat", served, "claude-sonnet-4-6")
    found = {name: event.get(f"$ai_{name}_tokens") for name in properties if name != "exclusive"}
    assert {**found, "exclusive": event["$ai_cache_reporting_exclusive"]} == properties


@pytest.mark.parametrize(
    ("traffic", "tier"),
    [("ON_DEMAND", None), ("ON_DEMAND_PRIORITY", "priority"), ("ON_DEMAND_FLEX", "flex")],
)
def test_traffic_of_vertex_is_the_tier(traffic: str, tier: str | None) -> None:
    usage = {"prompt_tokens": 9, "extra_properties": {"google": {"traffic_type": traffic}}}
    body = {"model": "google/gemini-2.5-flash", "choices": [], "usage": usage}
    (properties,) = events("chat", body, "google/gemini-2.5-flash")
    assert properties.get("$ai_service_tier") == tier


def test_one_lifetime_of_what_was_cached_tells_the_other() -> None:
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_creation_input_tokens": 1000,
        "cache_creation": {"ephemeral_1h_input_tokens": 1000},
    }
    (properties,) = events("message", {"model": "m", "usage": usage}, "m")
    assert properties["$ai_cache_creation_1h_input_tokens"] == 1000
    assert properties["$ai_cache_creation_5m_input_tokens"] == 0


def test_all_of_an_embedding_is_input() -> None:
    (properties,) = events("embedding", {"model": "m", "usage": {"total_tokens": 1000}}, "m")
    assert properties["$ai_input_tokens"] == 1000


def test_a_helper_is_priced_by_its_own_name() -> None:
    """Also where the gateway's prefix was taken off the name of the answer's model."""
    usage = {
        "input_tokens": 100,
        "output_tokens": 50,
        "iterations": [run("advisor_message", model="claude-opus-4-8")],
    }
    body = {"model": "claude-sonnet-4.6", "usage": usage}
    host = "https://ai-gateway.vercel.sh"
    first, advisor = events("message", body, "anthropic/claude-sonnet-4.6", host)
    assert first["$ai_model"] == "claude-sonnet-4.6"
    assert advisor["$ai_model"] == "claude-opus-4-8"


def test_a_text_count_that_leaves_out_reasoning_is_not_captured() -> None:
    details = {"reasoning_tokens": 3000, "text_tokens": 500}
    raw = {"prompt_tokens": 9, "completion_tokens": 3500, "completion_tokens_details": details}
    usage = normalized(read(raw, "openai"), "claude-sonnet-4-5", "openai")
    assert (usage.output_tokens, usage.text_output_tokens) == (3500, None)


def test_realtime_spelling() -> None:
    raw = {
        "input_tokens": 100,
        "output_tokens": 50,
        "input_token_details": {"audio_tokens": 60, "text_tokens": 40},
        "output_token_details": {"audio_tokens": 45, "text_tokens": 5},
    }
    usage = normalized(read(raw, "openai"), "gpt-realtime", "openai")
    assert (usage.audio_input_tokens, usage.text_input_tokens) == (60, 40)
    assert (usage.audio_output_tokens, usage.text_output_tokens) == (45, 5)


def run(kind: str, **more: Any) -> dict[str, Any]:
    """Shapes: the SDK's `BetaIterationsUsage`."""
    counts = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 3}
    return {"type": kind, **counts, "cache_creation_input_tokens": 4, **more}


def test_runs_behind_an_answer_of_anthropics() -> None:
    steps = [
        run("message"),
        run("compaction"),
        run("advisor_message", model="claude-opus-4-6"),
        run("fallback_message", model="claude-sonnet-4-6"),
    ]
    usage = {
        "input_tokens": 100,
        "output_tokens": 50,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "inference_geo": "us",
        "iterations": steps,
    }
    first, advisor = events("message", {"model": "m", "usage": usage}, "claude-fable-5")
    names = ["$ai_model", "$ai_input_tokens", "$ai_output_tokens", "$ai_cache_read_input_tokens"]
    assert [first[name] for name in names] == ["claude-sonnet-4-6", 110, 55, 3]
    assert first["$ai_cache_creation_5m_input_tokens"] == 14
    lives = {"ephemeral_5m_input_tokens": 14, "ephemeral_1h_input_tokens": 20}
    assert first["$ai_usage"]["cache_creation"] == lives
    assert first["posthog_llm_inference_geo"] == "us"
    assert [advisor[name] for name in names] == ["claude-opus-4-6", 10, 5, 3]
    assert advisor["$ai_parent_id"] == first["$ai_span_id"] == ID
    assert advisor["$ai_trace_id"] == first["$ai_trace_id"]
    assert advisor["posthog_llm_outcome"] == "ok"
    assert not {"$ai_latency", "$ai_input", "$ai_output_choices"} & advisor.keys()


XAI = "https://api.x.ai/v1"
SEARCHED = {
    "input_tokens": 5,
    "output_tokens": 6,
    "num_sources_used": 0,
    "server_side_tool_usage_details": {"web_search_calls": 2},
}


@pytest.mark.parametrize("ticks", [1, 10**9 + 1, 12 * 10**9, 10**13])
def test_cost_in_small_units_has_no_smaller_bound(ticks: int) -> None:
    """https://docs.x.ai/developers/cost-tracking: 10 ** 10 ticks are a dollar."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost_in_usd_ticks": ticks}
    (properties,) = events(
        "chat", {"model": "grok-4", "choices": [], "usage": usage}, "grok-4", XAI
    )
    assert properties["$ai_total_cost_usd"] == ticks / 10**10
    assert properties["$ai_cost_passthrough"] is True


@pytest.mark.parametrize("cost", ["1_0", "-1", "$1", "nan", -1, True, 10**10])
def test_what_is_no_cost_is_none(cost: Any) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": cost}
    (properties,) = events("chat", {"model": "m", "choices": [], "usage": usage}, "m")
    assert "$ai_total_cost_usd" not in properties


@pytest.mark.parametrize("byok", [True, "true", "True", 1])
def test_key_of_ones_own_however_it_is_said(byok: Any) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.001, "is_byok": byok}
    usage["cost_details"] = {"upstream_inference_cost": 0.02}
    (properties,) = events("chat", {"model": "m", "choices": [], "usage": usage}, "m")
    assert properties["$ai_total_cost_usd"] == pytest.approx(0.021)


def test_searches_of_xai_are_no_sources() -> None:
    calls = [{"type": "web_search_call", "action": {"type": "search"}} for _ in range(2)]
    body = {"model": "grok-4", "output": calls, "usage": {**SEARCHED}}
    (properties,) = events("response", body, "grok-4", XAI)
    assert properties["$ai_web_search_count"] == 2
    del body["usage"]["server_side_tool_usage_details"]
    (properties,) = events("response", body, "grok-4", XAI)
    assert properties["$ai_web_search_count"] == 2
    (properties,) = events("chat", {"model": "m", "choices": [], "usage": SEARCHED}, "grok-4", XAI)
    assert properties["$ai_web_search_count"] == 2


@pytest.mark.parametrize("cached", [64, 128])
def test_as_much_reasoning_as_was_cached(cached: int) -> None:
    """The total has one of both: reasoning, where it is a provider that leaves that out."""
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 50,
        "total_tokens": 1178,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 128},
    }
    (properties,) = events(
        "chat", {"model": "grok-4", "choices": [], "usage": usage}, "grok-4", XAI
    )
    assert properties["$ai_cache_reporting_exclusive"] is False
    assert properties["$ai_output_tokens"] == 178


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({"usage": {"type": "duration", "seconds": 60}}, 60),
        ({"usage": {"type": "duration", "seconds": "60"}}, 60),
        ({"usage": {"type": "duration", "seconds": 0}}, 0),
        ({"usage": {"type": "duration", "seconds": -60}}, None),
        ({"duration": "60.5"}, 60.5),
        ({"duration": -60.0}, None),
        ({"duration": 60.0, "usage": {"type": "tokens", "input_tokens": 6}}, None),
    ],
)
def test_length_of_what_was_heard(said: Any, seconds: Any) -> None:
    (properties,) = events("transcription", {"text": "a", **said}, "whisper-1")
    assert properties.get("posthog_llm_audio_seconds") == seconds


def test_host_that_is_spelled_to_its_root() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.5}
    body = {"model": "m/m", "choices": [], "usage": usage}
    (properties,) = events("chat", body, "m/m", "https://openrouter.ai./api/v1")
    assert properties["$ai_provider"] == "openrouter"


def test_deployment_of_fireworks_keeps_its_name() -> None:
    asked = "accounts/team7p2/deployments/kimi-k2p6"
    url = "https://api.fireworks.ai/inference/v1"
    (properties,) = events("chat", {"model": asked, "choices": []}, asked, url)
    assert properties["$ai_model"] == "accounts/team7p2/deployments/kimi-k2.6"


def test_tools_of_a_response() -> None:
    """Shapes: the SDK's `ToolUsage`."""
    drawn = {
        "input_tokens": 20,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 20},
        "output_tokens": 272,
        "output_tokens_details": {"image_tokens": 272, "text_tokens": 0},
        "total_tokens": 292,
    }
    output = [
        *({"type": "web_search_call", "action": {"type": "search"}} for _ in range(3)),
        *({"type": "file_search_call"} for _ in range(2)),
        *({"type": "code_interpreter_call", "container_id": "c1"} for _ in range(2)),
    ]
    body = {
        "model": "gpt-5",
        "output": output,
        "tools": [{"type": "image_generation", "model": "gpt-image-1.5"}],
        "usage": {"input_tokens": 5, "output_tokens": 6},
        "tool_usage": {"web_search": {"num_requests": 2}, "image_gen": drawn},
    }
    first, picture = events("response", body, "gpt-5", "https://api.openai.com/v1")
    assert first["$ai_web_search_count"] == 2
    assert first["posthog_llm_file_searches"] == 2
    assert first["posthog_llm_containers"] == 1
    assert first["$ai_request_cost_usd"] == 0.005
    assert (picture["$ai_model"], picture["$ai_image_output_tokens"]) == ("gpt-image-1.5", 272)
    assert (picture["$ai_span_name"], picture["$ai_parent_id"]) == ("image_generation", ID)
