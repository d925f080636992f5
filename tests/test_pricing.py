"""What decides the bill: the model's name, the provider, and what each count means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posthog_llm import _event as event
from posthog_llm._exchange import Exchange, Scope
from posthog_llm._providers.gateways import ROWS
from posthog_llm._providers.hosts import bare_url, provider_of
from posthog_llm._providers.model_name import priced_name
from posthog_llm._providers.reading import read as read_exchange
from posthog_llm._providers.usage import normalized, read
from posthog_llm.testing import MemorySink, Reply, ScriptedProvider

from .driving import Driver

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("requested", "served", "provider", "priced"),
    [
        ("gpt-5", "gpt-5-2025-08-07", "openai", "gpt-5"),
        ("gpt-5-2025-08-07", "gpt-5-2025-08-07", "openai", "gpt-5"),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini-2025-08-07", "openai", "gpt-5-mini"),
        ("gpt-5.1-2025-11-13", "gpt-5.1-2025-11-13", "openai", "gpt-5.1-2025-11-13"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13", "openai", "gpt-4o-2024-05-13"),
        ("gpt-4o", "gpt-4o-2024-08-06", "openai", "gpt-4o"),
        ("gpt-4", "gpt-4-0613", "openai", "gpt-4"),
        (None, "gpt-5-2025-08-07", "openai", "gpt-5"),
        ("gpt-4o", None, "openai", "gpt-4o"),
        (None, None, "openai", None),
        ("chat", "gpt-4o-2024-08-06", "azure", "gpt-4o-2024-08-06"),
        ("my-auto-deployment", "gpt-5-2025-08-07", "azure", "gpt-5"),
        ("gpt-4o", "gpt-4o-2024-08-06", "azure", "gpt-4o"),
        (
            "anthropic/claude-sonnet-4.5",
            "anthropic/claude-4.5-sonnet-20250929",
            "openrouter",
            "anthropic/claude-sonnet-4.5",
        ),
        ("openrouter/auto", "openai/gpt-5-mini", "openrouter", "openai/gpt-5-mini"),
        (
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc",
            "openai.gpt-oss-120b-1:0",
            "bedrock",
            "openai.gpt-oss-120b-1:0",
        ),
        ("us.openai.gpt-oss-20b-1:0", "gpt-oss", "bedrock", "us.openai.gpt-oss-20b-1:0"),
        ("llama-3.3-70b-versatile", None, "groq", "llama-3.3-70b-instruct"),
        ("llama-3.1-8b-instant", None, "groq", "llama-3.1-8b-instruct"),
        (
            "accounts/fireworks/models/glm-5p2",
            None,
            "fireworks",
            "accounts/fireworks/models/glm-5.2",
        ),
        (
            "accounts/fireworks/models/kimi-k2p6",
            None,
            "novita",
            "accounts/fireworks/models/kimi-k2p6",
        ),
        ("chat", "gpt-35-turbo", "azure", "gpt-3.5-turbo"),
        ("gpt-4o", "gpt-4o-2024-05-13", "azure", "gpt-4o-2024-05-13"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-11-20", "azure", "gpt-4o-2024-11-20"),
        ("gpt-4o", "gpt-4o-2024-05-13", "openai", "gpt-4o"),
        ("gpt-35-turbo", "gpt-35-turbo-0613", "azure", "gpt-3.5-turbo-0613"),
        ("claude-opus-4-8", "deepseek-v4-pro", "deepseek", "deepseek-v4-pro"),
        ("deepseek-chat", "deepseek-v4-flash", "deepseek", "deepseek-v4-flash"),
        ("claude-sonnet-4-5", "glm-4.7", "z-ai", "glm-4.7"),
        ("glm-4.7", "glm-4.7-air", "z-ai", "glm-4.7"),
        ("claude-sonnet-4-5", "claude-sonnet-4-6", "anthropic", "claude-sonnet-4-5"),
        ("us.anthropic.claude-opus-4-1", "opus", "bedrock", "us.anthropic.claude-opus-4-1"),
        ("ft:gpt-4o:acme::1", "ft:gpt-4o-2024-08-06:acme::1", "openai", "ft:gpt-4o:acme::1"),
    ],
)
def test_model_name(requested: Any, served: Any, provider: str, priced: Any) -> None:
    assert priced_name(requested, served, provider) == priced


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1/", "openai"),
        ("https://eu.api.openai.com/v1/", "openai"),
        ("https://acme.openai.azure.com/openai/", "azure"),
        ("https://acme.services.ai.azure.com/models", "azure"),
        ("https://acme.openai.azure.us/openai/v1", "azure"),
        ("https://acme.openai.azure.cn/openai/v1", "azure"),
        ("https://acme.azure-api.net/openai/v1", "azure"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1", "bedrock"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
        ("https://api.x.ai/v1", "xai"),
        ("https://api.perplexity.ai", "perplexity"),
        ("https://api.cerebras.ai/v1", "cerebras"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "gemini"),
        ("https://us-east5-aiplatform.googleapis.com/v1", "vertex"),
        ("https://aiplatform.googleapis.com/v1", "vertex"),
        ("https://aiplatform.us.rep.googleapis.com/v1", "vertex"),
        ("https://bedrock-mantle.eu-west-1.api.aws/v1", "bedrock"),
        ("https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com/openai/v1", "bedrock"),
        ("https://my-lb-123.us-east-1.elb.amazonaws.com/v1", "openai"),
        ("https://bedrock-proxy-1.us-east-1.elb.amazonaws.com/v1", "openai"),
        ("https://a1.execute-api.us-east-1.amazonaws.com/v1", "openai"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "alibaba"),
        ("https://w1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1", "alibaba"),
        ("https://1.cn-hangzhou.fc.aliyuncs.com/v1", "openai"),
        ("http://localhost:11434/v1", "ollama"),
        ("http://127.0.0.1:8000/v1", "openai"),
        ("https://notopenrouter.ai/v1", "openai"),
        ("https://openrouter.ai.evil.example/v1", "openai"),
        ("", "openai"),
        ("not a url", "openai"),
    ],
)
def test_provider(url: str, provider: str) -> None:
    assert provider_of(url) == provider


def test_bare_url() -> None:
    assert bare_url("https://u:p@h.example:8443/v1?key=1#x") == "https://h.example:8443/v1"
    assert bare_url("") is None


DETAILS = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {
        "cached_tokens": 40,
        "cache_write_tokens": 10,
        "audio_tokens": 5,
        "image_tokens": 3,
        "text_tokens": 92,
    },
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 4, "text_tokens": 46},
}


def counts(raw: Any, provider: str = "openai", model: str = "gpt-5") -> dict[str, Any]:
    usage = normalized(read(raw, provider), model, provider)
    names = [
        name
        for name in type(usage).__slots__
        if name not in ("raw", "cache_tokens_excluded", "estimated")
    ]
    return {name: value for name in names if (value := getattr(usage, name)) is not None}


def test_openai_usage() -> None:
    assert counts(DETAILS) == {
        "input_tokens": 100,
        "output_tokens": 50,
        "total_tokens": 150,
        "cache_read_tokens": 40,
        "cache_write_tokens": 10,
        "reasoning_tokens": 30,
        "text_input_tokens": 92,
        "audio_input_tokens": 5,
        "image_input_tokens": 3,
        "text_output_tokens": 46,
        "audio_output_tokens": 4,
    }


def test_dialects() -> None:
    tokens = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    assert counts({**tokens, "prompt_cache_hit_tokens": 64})["cache_read_tokens"] == 64
    assert counts({**tokens, "num_cached_tokens": 32}, "mistral")["cache_read_tokens"] == 32
    xai = {**tokens, "total_tokens": 190, "completion_tokens_details": {"reasoning_tokens": 40}}
    assert counts(xai, "xai", "grok-4")["output_tokens"] == 90
    assert counts({**tokens, "cost_in_usd_ticks": 37_756_000}, "xai")["cost_usd"] == 0.0037756
    thinking = {**tokens, "total_tokens": 180}
    gemini = counts(thinking, "gemini", "gemini-2.5-pro")
    assert (gemini["output_tokens"], gemini["reasoning_tokens"]) == (50, 30)
    routed = {**tokens, "completion_tokens_details": {"reasoning_tokens": 30}}
    assert "reasoning_tokens" not in counts(routed, "openrouter", "google/gemini-2.5-pro")
    assert counts(routed, "openrouter", "openai/gpt-5")["reasoning_tokens"] == 30
    byok = {**tokens, "cost": 0.01, "is_byok": True}
    byok["cost_details"] = {"upstream_inference_cost": 0.2}
    assert counts(byok, "openrouter")["cost_usd"] == pytest.approx(0.21)
    assert counts({**byok, "is_byok": False}, "openrouter")["cost_usd"] == 0.01
    assert counts({**tokens, "cost": {"total_cost": 0.006}}, "perplexity")["cost_usd"] == 0.006
    assert counts({"type": "duration", "seconds": 12.5}) == {"audio_seconds": 12.5}


@pytest.mark.parametrize(
    "raw",
    [
        *(None, [], "many", 7, {}, {"prompt_tokens": None}, {"prompt_tokens": "9.5"}),
        *({"prompt_tokens": True}, {"prompt_tokens": -1}, {"prompt_tokens_details": []}),
        *({"prompt_tokens": float("nan")}, {"cost": "free"}, {"cost": {}}),
    ],
)
def test_what_is_no_count_is_unknown(raw: Any) -> None:
    assert counts(raw) == {}


def test_reported_zero_stays_zero() -> None:
    assert counts({"prompt_tokens": 3, "completion_tokens": 0})["output_tokens"] == 0


def test_cost_and_tier_in_the_event(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
    usage = {**DETAILS, "cost": 0.0125}
    provider.script(
        "/chat/completions", Reply.json({**body, "service_tier": "priority", "usage": usage})
    )
    client = drive.ours(posthog_client=sink, posthog_provider_override="openrouter")
    drive.call(lambda: client.chat.completions.create(**ASK, service_tier="auto"))
    (event,) = sink.wait_for(1)
    properties = event.properties
    assert properties["$ai_provider"] == "openrouter"
    assert (properties["$ai_total_cost_usd"], properties["$ai_cost_passthrough"]) == (0.0125, True)
    assert properties["$ai_service_tier"] == "priority"
    assert properties["$ai_model_parameters"]["service_tier"] == "auto"
    assert properties["$ai_cache_reporting_exclusive"] is False
    assert properties["$ai_cache_read_input_tokens"] == 40
    assert properties["$ai_cache_creation_input_tokens"] == 10
    assert properties["$ai_usage"] == usage


def test_running_usage_of_a_stream_is_not_summed(
    drive: Driver, sink: MemorySink, provider: ScriptedProvider
) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
    running = [
        {**chunk, "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": n}}
        for n in (1, 2, 3)
    ]
    provider.script("/chat/completions", Reply.stream(running))
    client = drive.ours(posthog_client=sink)
    drive.collect(lambda: client.chat.completions.create(**ASK, stream=True))
    assert sink.wait_for(1)[0].properties["$ai_output_tokens"] == 3


def test_web_searches(drive: Driver, sink: MemorySink, provider: ScriptedProvider) -> None:
    calls = [
        {"type": "web_search_call", "id": str(n), "status": "completed", "action": {"type": kind}}
        for n, kind in enumerate(["search", "open_page", "search", "find_in_page"])
    ]
    body = {"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed"}
    provider.script("/responses", Reply.json({**body, "output": calls, "tools": []}))
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.responses.create(model="m", input="x"))
    assert sink.wait_for(1)[0].properties["$ai_web_search_count"] == 2


def test_pictures_are_priced_as_pictures(drive: Driver, sink: MemorySink) -> None:
    client = drive.ours(posthog_client=sink)
    drive.call(lambda: client.images.generate(model="gpt-image-1", prompt="a cat"))
    properties = sink.wait_for(1)[0].properties
    assert properties["$ai_text_input_tokens"] == 10
    assert properties["$ai_image_output_tokens"] == 272


COMPATIBLE = sorted((Path(__file__).parent / "wire" / "compatible").glob("*.json"))


@pytest.mark.parametrize("path", COMPATIBLE, ids=lambda path: path.stem)
def test_compatible_service(path: Path) -> None:
    """Each file is an answer as the service documents it, and what is to be told of it."""
    recorded = json.loads(path.read_text())
    exchange = Exchange(
        endpoint="chat",
        id="00000000-0000-0000-0000-000000000001",
        scope=Scope(),
        started_at=1.0,
        base_url=recorded["base_url"],
        request=json.dumps(recorded["asked"]).encode(),
        body=json.dumps(recorded["answered"]).encode(),
        status=200,
        headers={"content-type": "application/json", **recorded.get("headers", {})},
    )
    properties = event.build(read_exchange(exchange), private=False).properties
    assert properties["$ai_provider"] == path.stem
    assert properties["$ai_base_url"] == recorded["base_url"]
    assert properties["$ai_usage"] == recorded["answered"]["usage"]
    expected = {"$ai_model": recorded["asked"]["model"], **recorded["told"]}
    assert {name: properties.get(name) for name in expected} == expected
    assert properties["$ai_cache_reporting_exclusive"] is False


def test_every_provider_has_its_answer() -> None:
    table = {row.provider for row in ROWS if row.provider}
    assert {path.stem for path in COMPATIBLE} == table
