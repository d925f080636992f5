"""Lets a request name its PostHog URL: newer LiteLLM versions keep the key but lose the URL."""

from __future__ import annotations

from typing import Any

from .._faults import guarded
from .._narrowing import is_list

_URLS = ("posthog_api_url", "posthog_host")


@guarded
def let_through() -> None:
    """Make LiteLLM pass `posthog_api_url` to callbacks, and keep `posthog_host` to itself.

    Otherwise it drops the first on the way, and sends the second to the provider.
    """
    from litellm.litellm_core_utils import initialize_dynamic_callback_params as dynamic
    from litellm.types import utils

    known: Any = getattr(dynamic, "_supported_callback_params", None)
    if isinstance(known, tuple):
        missing = tuple(name for name in _URLS if name not in known)
        dynamic._supported_callback_params = (*known, *missing)
    owned: Any = getattr(utils, "all_litellm_params", None)
    if is_list(owned):
        owned.extend(name for name in _URLS if name not in owned)
