"""The SDKs that we know, by the name that programs import; `instrument` takes the same names."""

from __future__ import annotations

from . import genai, stainless
from .sdk import Sdk

SDKS: dict[str, Sdk] = {
    "openai": stainless.SDK,
    "anthropic": stainless.SDK,
    "gemini": genai.SDK,
}
MODULES = {"gemini": "google.genai"}
"""The SDKs' packages, where they are called other than the SDK."""
watched: set[str] = set()
"""Those of which `instrument` sees every call."""
