"""`anthropic`, with every model call captured in PostHog.

    from posthog_llm.anthropic import Anthropic

The client classes are subclasses of the SDK's. Every other public name of the `anthropic` package
is the SDK's own object, so this module is a drop-in replacement for `import anthropic`.
"""

# pyright: reportPrivateImportUsage=false
# The SDK exports some classes only through `__all__`.

from __future__ import annotations

try:
    import anthropic as _sdk
except ImportError as error:
    raise ImportError(
        "posthog_llm.anthropic needs the anthropic package: pip install 'posthog-llm[anthropic]'"
    ) from error

from .._observe.client import AsyncClient as _AsyncClient
from .._observe.client import SyncClient as _SyncClient
from .._observe.drop_in import drop_in_for as _drop_in_for


class Anthropic(_SyncClient, _sdk.Anthropic):
    pass


class AsyncAnthropic(_AsyncClient, _sdk.AsyncAnthropic):
    pass


class AnthropicBedrock(_SyncClient, _sdk.AnthropicBedrock):
    pass


class AsyncAnthropicBedrock(_AsyncClient, _sdk.AsyncAnthropicBedrock):
    pass


class AnthropicVertex(_SyncClient, _sdk.AnthropicVertex):
    pass


class AsyncAnthropicVertex(_AsyncClient, _sdk.AsyncAnthropicVertex):
    pass


if hasattr(_sdk, "AnthropicBedrockMantle"):

    class AnthropicBedrockMantle(_SyncClient, _sdk.AnthropicBedrockMantle):
        pass

    class AsyncAnthropicBedrockMantle(_AsyncClient, _sdk.AsyncAnthropicBedrockMantle):
        pass


if hasattr(_sdk, "AnthropicFoundry"):

    class AnthropicFoundry(_SyncClient, _sdk.AnthropicFoundry):
        pass

    class AsyncAnthropicFoundry(_AsyncClient, _sdk.AsyncAnthropicFoundry):
        pass


if hasattr(_sdk, "AnthropicAWS"):

    class AnthropicAWS(_SyncClient, _sdk.AnthropicAWS):
        pass

    class AsyncAnthropicAWS(_AsyncClient, _sdk.AsyncAnthropicAWS):
        pass


if hasattr(_sdk, "AnthropicGoogleCloud"):

    class AnthropicGoogleCloud(_SyncClient, _sdk.AnthropicGoogleCloud):
        pass

    class AsyncAnthropicGoogleCloud(_AsyncClient, _sdk.AsyncAnthropicGoogleCloud):
        pass


Client = Anthropic
AsyncClient = AsyncAnthropic


__all__ = _sdk.__all__  # pyright: ignore
_drop_in_for(_sdk, __name__)
