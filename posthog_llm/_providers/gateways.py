"""The service table: how to recognize a request to each service, and what determines its price.

A new service needs a row here, or in `services`, and a response in `tests/wire/gateways` or
`tests/wire/compatible`. `hosts` does the lookups, `costs` reads what a service charged,
`model_name` chooses between two names, and `python -m tests.gateways_page` writes the table in
`docs/gateways.md`.
"""

from __future__ import annotations

import re

from .row import Place, Row
from .services import LOCAL, PROVIDERS

_PREFIX = Place("model", re.compile(r"(?P<provider>[^/]+)/(?P<model>.+)"), "prefix of the model")
_HIT = re.compile(r"(?:semantic )?hit", re.IGNORECASE)
_CLOUDFLARE = r"/v1/[^/]+/[^/]+"

# https://developers.cloudflare.com/ai-gateway/features/dynamic-routing/usage: the response headers
# say who ran a route. Workers AI's own models are `@cf/...`.
_CLOUDFLARE_RAN = Place(
    "<cf-aig-provider", re.compile(r"(?P<provider>.+)"), "the answer's header `cf-aig-provider`"
)
_CLOUDFLARE_PREFIX = Place(
    "model", re.compile(r"(?!@|dynamic/)(?P<provider>[^/]+)/(?P<model>.+)"), _PREFIX.says
)

GATEWAYS = (
    # https://developers.cloudflare.com/ai-gateway/usage/chat-completion/
    Row(
        "cloudflare",
        ("gateway.ai.cloudflare.com",),
        "Cloudflare AI Gateway, `/compat`",
        path=re.compile(rf"{_CLOUDFLARE}/compat(?:/.*)?"),
        places=(_CLOUDFLARE_RAN, _CLOUDFLARE_PREFIX),
        ran="cf-aig-model",
    ),
    Row(
        "cloudflare",
        ("api.cloudflare.com",),
        "Cloudflare REST API",
        places=(_CLOUDFLARE_RAN, _CLOUDFLARE_PREFIX),
        ran="cf-aig-model",
    ),
    Row(
        "cloudflare",
        ("gateway.ai.cloudflare.com",),
        "Cloudflare AI Gateway",
        places=(
            Place(
                "path",
                re.compile(rf"{_CLOUDFLARE}/(?P<provider>[^/]+)(?:/.*)?"),
                "path: `/v1/{account}/{gateway}/{provider}`",
            ),
        ),
        # https://developers.cloudflare.com/ai-gateway/features/caching/
        cached=(("cf-aig-cache-status", _HIT),),
    ),
    # https://portkey.ai/docs/product/ai-gateway/universal-api
    Row(
        None,
        ("portkey.ai",),
        "Portkey",
        headers=("x-portkey-provider", "x-portkey-api-key", "x-portkey-config"),
        places=(
            Place(
                "x-portkey-custom-host",
                re.compile(r"(?P<url>.+)"),
                "host in the header `x-portkey-custom-host`",
            ),
            # Its gateway names the chosen provider on each response.
            Place(
                "<x-portkey-provider",
                re.compile(r"(?P<provider>.+)"),
                "the answer's header `x-portkey-provider`",
            ),
            Place("model", re.compile(r"@(?P<provider>[^/]+)/(?P<model>.+)"), "model `@slug/name`"),
            Place(
                "x-portkey-provider",
                re.compile(r"@?(?P<provider>.+)"),
                "header `x-portkey-provider`",
            ),
        ),
        configured="x-portkey-config",
        # https://portkey.ai/docs/api-reference/response-schema
        cached=(("x-portkey-cache-status", _HIT),),
    ),
    # https://docs.helicone.ai/getting-started/integration-method/gateway
    Row(
        None,
        ("helicone.ai", "hconeai.com"),
        "Helicone",
        headers=("helicone-target-url",),
        places=(
            Place("host", re.compile(r"(?P<provider>[^.]+)\..+"), "host: `<provider>.helicone.ai`"),
            Place(
                "helicone-target-url",
                re.compile(r"(?P<url>.+)"),
                "host in the header `helicone-target-url`",
            ),
        ),
        # https://github.com/Helicone/helicone, its worker's cache functions
        cached=(("helicone-cache", _HIT),),
    ),
    # https://huggingface.co/docs/inference-providers/index
    Row(
        "huggingface",
        ("router.huggingface.co",),
        "Hugging Face router",
        places=(
            Place("path", re.compile(r"/(?P<provider>[^/]+)(?:/.*)?"), "path: `/{provider}`"),
            Place(
                "model", re.compile(r"(?P<model>.+):(?P<provider>[^:/]+)"), "model `name:provider`"
            ),
        ),
    ),
    # https://vercel.com/docs/ai-gateway/sdks-and-apis/openai-chat-completions
    Row(
        None,
        ("ai-gateway.vercel.sh",),
        "Vercel AI Gateway",
        places=(_PREFIX,),
        dialect="vercel",
        fallbacks=(("models",), ("providerOptions", "gateway", "models")),
        cost=("choices", "message", "provider_metadata", "gateway", "cost"),
        also_cost=(
            ("provider_metadata", "gateway", "cost"),
            ("providerMetadata", "gateway", "cost"),
        ),
    ),
    # https://docs.litellm.ai/docs/proxy/response_headers: a stream's headers are sent before its
    # cost is known; its usage may have it.
    Row(
        None,
        name="LiteLLM gateway",
        headers=("<x-litellm-call-id", "<x-litellm-version"),
        places=(
            Place(
                "<x-litellm-model-api-base",
                re.compile(r"(?P<url>.+)"),
                "host in the answer's header `x-litellm-model-api-base`",
            ),
            Place(
                "<x-litellm-model-name",
                re.compile(r"(?P<provider>[^/]+)/.+"),
                "prefix in the answer's header `x-litellm-model-name`",
            ),
        ),
        # Since 1.81.7, the model name in a response is the requested one.
        ran="x-litellm-model-name",
        cost=("<x-litellm-response-cost",),
        cached=(
            ("x-litellm-cache-key", re.compile(r".+")),
            ("x-litellm-response-cost", re.compile(r"0(?:\.0*)?")),
        ),
        priced="served",
    ),
)
"""Services that forward requests to providers."""

ROWS = (*GATEWAYS, *PROVIDERS, *LOCAL)
