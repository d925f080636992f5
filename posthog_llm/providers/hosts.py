"""Who serves a base URL: the provider's name as PostHog's price book knows it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_DOMAINS = {
    "openai.azure.com": "azure",
    "services.ai.azure.com": "azure",
    "cognitiveservices.azure.com": "azure",
    "models.inference.ai.azure.com": "azure",
    "inference.ai.azure.com": "azure",
    "amazonaws.com": "bedrock",
    "api.aws": "bedrock",
    "aiplatform.googleapis.com": "vertex",
    "generativelanguage.googleapis.com": "gemini",
    "openrouter.ai": "openrouter",
    "groq.com": "groq",
    "deepseek.com": "deepseek",
    "mistral.ai": "mistral",
    "together.xyz": "together",
    "together.ai": "together",
    "fireworks.ai": "fireworks",
    "x.ai": "xai",
    "perplexity.ai": "perplexity",
    "cerebras.ai": "cerebras",
    "anthropic.com": "anthropic",
    "cohere.ai": "cohere",
    "cohere.com": "cohere",
    "deepinfra.com": "deepinfra",
    "sambanova.ai": "sambanova",
    "novita.ai": "novita",
    "hyperbolic.xyz": "hyperbolic",
    "nebius.com": "nebius",
    "nebius.ai": "nebius",
    "moonshot.ai": "moonshotai",
    "moonshot.cn": "moonshotai",
    "z.ai": "z-ai",
    "bigmodel.cn": "z-ai",
    "minimax.io": "minimax",
    "aliyuncs.com": "alibaba",
    "siliconflow.cn": "siliconflow",
    "siliconflow.com": "siliconflow",
    "huggingface.co": "huggingface",
    "nvidia.com": "nvidia",
    "cloudflare.com": "cloudflare",
    "githubcopilot.com": "github",
    "models.github.ai": "github",
    "ai21.com": "ai21",
    "baseten.co": "baseten",
    "parasail.io": "parasail",
    "ollama.com": "ollama",
}
_REPORT_USAGE_UNASKED = frozenset(
    {
        # https://openrouter.ai/docs/use-cases/usage-accounting: the option "has no effect"
        "openrouter",
        # https://api-docs.deepseek.com/api/create-chat-completion: "either way, the last chunk"
        "deepseek",
        # The API answers 422 to the option, and has usage in the last chunk:
        # https://github.com/TabbyML/tabby/pull/4082
        "mistral",
        # `x_groq.usage` in the last chunk:
        # https://github.com/groq/groq-python/blob/main/src/groq/types/chat/chat_completion_chunk.py
        "groq",
        # https://docs.perplexity.ai/docs/sonar/features: metadata is in the last chunks
        "perplexity",
    }
)
"""Providers whose streams report usage without `stream_options.include_usage`."""
_VERTEX = re.compile(r"[\w-]+-aiplatform\.googleapis\.com|aiplatform\.[\w-]+\.rep\.googleapis\.com")
_CLASSES = {
    "AzureOpenAI": "azure",
    "BedrockOpenAI": "bedrock",
    "AnthropicBedrock": "bedrock",
    "AnthropicBedrockMantle": "bedrock",
    "AnthropicVertex": "vertex",
    "AnthropicFoundry": "azure",
    # Anthropic's own API, under its own model names and prices, sold through a cloud.
    "AnthropicAWS": "anthropic",
    "AnthropicGoogleCloud": "anthropic",
}
"""Classes of clients, less the `Async` of some, that stand for a provider whatever the host."""
_AREAS = {"us": "us", "eu": "europe", "global": "global"}
_LOCAL_PORTS = {11434: "ollama", 1234: "lmstudio"}
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "host.docker.internal"})


def provider_of(base_url: str, unknown: str = "openai") -> str:
    """Return the provider behind `base_url`; `unknown` where the host tells nothing.

    A proxy's host tells nothing: name the provider with `posthog_provider_override`.
    """
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    labels = host.split(".")
    for start in range(len(labels) - 1):
        if found := _DOMAINS.get(".".join(labels[start:])):
            return found
    if _VERTEX.fullmatch(host):
        return "vertex"
    if host in _LOCAL:
        return _LOCAL_PORTS.get(_port(parts.netloc), unknown)
    return unknown


@lru_cache(maxsize=256)
def reports_usage_unasked(base_url: str) -> bool:
    """Whether streams from `base_url` are known to report usage that nobody asked for."""
    return provider_of(base_url) in _REPORT_USAGE_UNASKED


def provider_of_class(client: Any) -> str | None:
    """Return the provider that a client's class stands for; `None`: its host tells."""
    names = (cls.__name__.removeprefix("Async") for cls in type(client).__mro__)
    return next((_CLASSES[name] for name in names if name in _CLASSES), None)


_NAMES = {
    "vertex_ai": "vertex",
    "vertex_ai_beta": "vertex",
    "azure_ai": "azure",
    "azure_text": "azure",
    "bedrock_converse": "bedrock",
    "bedrock_mantle": "bedrock",
    "sagemaker": "bedrock",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "text-completion-openai": "openai",
    "cohere_chat": "cohere",
    "ollama_chat": "ollama",
    "lm_studio": "lmstudio",
    "moonshot": "moonshotai",
    "zai": "z-ai",
    "nvidia_nim": "nvidia",
    "dashscope": "alibaba",
    "github_copilot": "github",
}


def provider_named(name: str) -> str:
    """Return the provider that LiteLLM calls by a name of its own."""
    return _NAMES.get(name, name)


def regional(provider: str, region: str | None) -> str:
    """Return the provider's name with its region, where PostHog has prices by region.

    https://cloud.google.com/vertex-ai/generative-ai/pricing: a region costs more than `global`.
    """
    if provider != "vertex" or not region:
        return provider
    area = next((a for start, a in _AREAS.items() if region.startswith(start)), None)
    return f"google-vertex-{area}" if area else provider


def _port(netloc: str) -> int:
    digits = netloc.rpartition(":")[2]
    return int(digits) if digits.isdecimal() else 0


def bare_url(base_url: str) -> str | None:
    """Return scheme, host and path of a URL: no credentials, query or fragment."""
    parts = urlsplit(base_url)
    if not parts.netloc:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
