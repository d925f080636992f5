"""`google.genai`, with every model call captured in PostHog.

    from posthog_llm.gemini import Client

`Client` is a subclass of the SDK's. Every other public name of the `google.genai` package is the
SDK's own object, so this module is a drop-in replacement for `from google import genai`.
"""

from __future__ import annotations

try:
    import google.genai as _sdk
except ImportError as error:
    raise ImportError(
        "posthog_llm.gemini needs the google-genai package: pip install 'posthog-llm[gemini]'"
    ) from error

from .._observe.drop_in import drop_in_for as _drop_in_for
from .._observe.genai_client import ObservedClient as _ObservedClient


class Client(_ObservedClient, _sdk.Client):
    pass


__all__ = _sdk.__all__  # pyright: ignore
_drop_in_for(_sdk, __name__)
