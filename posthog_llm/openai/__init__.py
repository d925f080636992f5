"""`openai`, with every model call captured in PostHog.

    from posthog_llm.openai import OpenAI

The client classes are subclasses of the SDK's. Every other public name of the `openai` package is
the SDK's own object, so this module is a drop-in replacement for `import openai`.
"""

from __future__ import annotations

try:
    import openai as _sdk
except ImportError as error:
    raise ImportError(
        "posthog_llm.openai needs the openai package: pip install 'posthog-llm[openai]'"
    ) from error

from .._observe.client import AsyncClient as _AsyncClient
from .._observe.client import SyncClient as _SyncClient
from .._observe.drop_in import drop_in_for as _drop_in_for


class OpenAI(_SyncClient, _sdk.OpenAI):
    pass


class AsyncOpenAI(_AsyncClient, _sdk.AsyncOpenAI):
    pass


class AzureOpenAI(_SyncClient, _sdk.AzureOpenAI):
    pass


class AsyncAzureOpenAI(_AsyncClient, _sdk.AsyncAzureOpenAI):
    pass


if hasattr(_sdk, "BedrockOpenAI"):

    class BedrockOpenAI(_SyncClient, _sdk.BedrockOpenAI):
        pass

    class AsyncBedrockOpenAI(_AsyncClient, _sdk.AsyncBedrockOpenAI):
        pass


Client = OpenAI
AsyncClient = AsyncOpenAI


__all__ = _sdk.__all__  # pyright: ignore
_drop_in_for(_sdk, __name__)
