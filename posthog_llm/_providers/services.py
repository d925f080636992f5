"""The services that run models: part of the service table."""

from __future__ import annotations

from .row import Row

PROVIDERS = (
    Row("openai", ("openai.com",), also=("oai", "open-ai", "openai-api", "text-completion-openai")),
    Row(
        "anthropic",
        ("anthropic.com",),
        also=("claude", "anthropic-claude"),
        # Anthropic's own API, with its own model names and prices, sold through a cloud.
        classes=("AnthropicAWS", "AnthropicGoogleCloud"),
        sells_claude=True,
    ),
    Row(
        "azure",
        (
            *("openai.azure.com", "services.ai.azure.com", "models.ai.azure.com"),
            *("cognitiveservices.azure.com", "api.cognitive.microsoft.com"),
            *("models.inference.ai.azure.com", "inference.ai.azure.com"),
            # Other clouds: https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure
            *("openai.azure.us", "cognitiveservices.azure.us", "openai.azure.cn"),
            "azure-api.net",  # its API management, mostly in front of deployments
        ),
        also=("azure-openai", "azure_ai", "azure-ai", "azure_text", "azure-foundry"),
        classes=("AzureOpenAI", "AnthropicFoundry"),
        priced="served",  # a request names the customer's deployment, not a model
        sells_claude=True,
        respelled=(r"^gpt-35-", "gpt-3.5-"),
    ),
    Row(
        "bedrock",
        # Only these of the cloud's hosts: a load balancer or a gateway may be anything.
        (
            *("bedrock.*.amazonaws.com", "bedrock-fips.*.amazonaws.com"),
            *("bedrock-runtime.*.amazonaws.com", "bedrock-runtime-fips.*.amazonaws.com"),
            *("bedrock-mantle.*.amazonaws.com", "bedrock-mantle.*.api.aws"),
            *("bedrock-runtime.*.api.aws", "bedrock-runtime-fips.*.api.aws"),
            "runtime.sagemaker.*.amazonaws.com",
        ),
        also=(
            *("aws-bedrock", "amazon-bedrock", "bedrock_converse", "bedrock_mantle"),
            *("amazon", "aws", "sagemaker"),
        ),
        classes=("BedrockOpenAI", "AnthropicBedrock", "AnthropicBedrockMantle"),
        sells_claude=True,
    ),
    Row(
        "vertex",
        (
            *("aiplatform.googleapis.com", "*-aiplatform.googleapis.com"),
            "aiplatform.*.rep.googleapis.com",
        ),
        also=("vertex_ai", "vertex_ai_beta", "vertex-ai", "google-vertex-ai", "google-vertex"),
        classes=("AnthropicVertex",),
        sells_claude=True,
    ),
    Row(
        "gemini",
        ("generativelanguage.googleapis.com",),
        also=("google", "google-ai", "google-ai-studio", "google-gemini"),
    ),
    Row(
        "openrouter",
        ("openrouter.ai",),
        # https://openrouter.ai/docs/use-cases/usage-accounting: the option "has no effect"
        reports_unasked=True,
        cost=("usage", "cost"),
        priced="requested",  # it serves slugs that have no price of their own
        fallbacks=(("models",),),
        # https://openrouter.ai/docs/guides/features/presets: `model@preset/slug`
        respelled=(r"(?<=.)@preset/.*", ""),
        sells_claude=True,
    ),
    # `x_groq.usage` in the last chunk:
    # https://github.com/groq/groq-python/blob/main/src/groq/types/chat/chat_completion_chunk.py
    Row(
        "groq",
        ("groq.com",),
        also=("groq-cloud",),
        respelled=(r"-(?:versatile|instant)$", "-instruct"),
        reports_unasked=True,
    ),
    # https://api-docs.deepseek.com/api/create-chat-completion: "either way, the last chunk".
    # https://api-docs.deepseek.com/guides/anthropic_api: unknown model names are mapped.
    Row("deepseek", ("deepseek.com",), also=("deep-seek",), priced="served", reports_unasked=True),
    # The API rejects the option with 422, and has usage in the last chunk:
    # https://github.com/TabbyML/tabby/pull/4082
    Row("mistral", ("mistral.ai",), also=("mistral-ai", "mistralai"), reports_unasked=True),
    Row("together", ("together.xyz", "together.ai"), also=("together_ai", "together-ai")),
    Row(
        "fireworks",
        ("fireworks.ai",),
        also=("fireworks_ai", "fireworks-ai"),
        respelled=(r"(?<=\d)p(?=\d)(?![^/]*/)", "."),  # `kimi-k2p6`, in the last segment
    ),
    # https://docs.x.ai/developers/cost-tracking
    Row(
        "xai",
        ("x.ai",),
        also=("x-ai", "grok"),
        cost=("usage", "cost_in_usd_ticks"),
        per_dollar=10**10,
    ),
    # https://docs.perplexity.ai/docs/sonar/features: metadata is in the last chunks
    Row(
        "perplexity",
        ("perplexity.ai",),
        also=("perplexity-ai", "pplx"),
        reports_unasked=True,
        cost=("usage", "cost", "total_cost"),
        sells_claude=True,
    ),
    Row("cerebras", ("cerebras.ai",)),
    Row("cohere", ("cohere.ai", "cohere.com"), also=("cohere_chat", "cohere-ai")),
    Row("deepinfra", ("deepinfra.com",), cost=("usage", "estimated_cost"), sells_claude=True),
    Row("sambanova", ("sambanova.ai",)),
    Row("novita", ("novita.ai",), also=("novita-ai",)),
    Row("hyperbolic", ("hyperbolic.xyz",)),
    Row("nebius", ("nebius.com", "nebius.ai")),
    Row("moonshotai", ("moonshot.ai", "moonshot.cn"), also=("moonshot",)),
    Row("z-ai", ("z.ai", "bigmodel.cn"), also=("zai", "zai-org")),
    Row("minimax", ("minimax.io",)),
    Row(
        "alibaba",
        ("dashscope.aliyuncs.com", "dashscope-*.aliyuncs.com", "maas.aliyuncs.com"),
        also=("dashscope",),
    ),
    Row("siliconflow", ("siliconflow.cn", "siliconflow.com")),
    Row("huggingface", ("huggingface.co",)),
    Row("nvidia", ("nvidia.com",), also=("nvidia_nim",)),
    Row("cloudflare", ("cloudflare.com",), also=("workers-ai",), sells_claude=True),
    Row(
        "github",
        ("githubcopilot.com", "models.github.ai"),
        also=("github_copilot",),
        sells_claude=True,
    ),
    Row("ai21", ("ai21.com",)),
    Row("baseten", ("baseten.co",)),
    Row("parasail", ("parasail.io",)),
    Row("ollama", ("ollama.com",), also=("ollama_chat",)),
)
"""Services that run models, or sell them under their own names."""

LOCAL = (
    Row("ollama", port=11434),
    Row("lmstudio", port=1234, also=("lm_studio",)),
    Row("llama.cpp", server="llama.cpp"),
)
"""Engines on the caller's own machines."""
