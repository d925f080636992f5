"""One test body for each provider, for sync and async, and for ours beside the bare SDK."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import anthropic
import openai
import pytest

import posthog_llm.anthropic
import posthog_llm.openai
from posthog_llm.testing import ScriptedProvider

Make = Callable[[Any], Any]


@dataclass(frozen=True)
class Vendor:
    """What one provider's SDK calls things."""

    sdk: ModuleType
    ours: ModuleType
    client: str
    path: str
    """Where its main endpoint is, below the scripted provider's base URL."""
    base_path: str
    create: Callable[..., Any]
    """Asks a client for an answer: `create(client, **arguments)`."""


OPENAI = Vendor(
    openai,
    posthog_llm.openai,
    "OpenAI",
    "/chat/completions",
    "/v1",
    lambda client, **more: client.chat.completions.create(**more),
)
ANTHROPIC = Vendor(
    anthropic,
    posthog_llm.anthropic,
    "Anthropic",
    "/messages",
    "",
    lambda client, **more: client.messages.create(**{"max_tokens": 100, **more}),
)


def saying(text: str) -> list[Any]:
    """Return the output of an event whose model said a text."""
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def failure_of(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the error of an event, its text as `message`."""
    return {"message": properties["$ai_error"], **properties["posthog_llm_error"]}


QUESTION = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Driver:
    """Makes clients for a scripted provider and runs calls on them, whichever their kind."""

    prefix = ""

    def __init__(self, provider: ScriptedProvider, vendor: Vendor = OPENAI) -> None:
        self.provider = provider
        self.vendor = vendor
        self.names = (f"{self.prefix}{vendor.client}", f"{self.prefix}AzureOpenAI")

    def ours(self, **kwargs: Any) -> Any:
        return self._client(self.vendor.ours, kwargs)

    def bare(self, **kwargs: Any) -> Any:
        return self._client(self.vendor.sdk, kwargs)

    def ask(self, client: Any, **more: Any) -> Any:
        """Ask for an answer, or open a stream, and return it."""
        return self.call(lambda: self.vendor.create(client, **{**QUESTION, **more}))

    def _client(self, module: Any, kwargs: dict[str, Any]) -> Any:
        kwargs = {"api_key": "test-key-123", "max_retries": 0, **kwargs}
        if "http_client" not in kwargs:
            kwargs = {"base_url": self.provider.url + self.vendor.base_path, **kwargs}
        return getattr(module, self.names[0])(**kwargs)

    def call(self, make: Callable[[], Any]) -> Any:
        """Run one call to its answer."""
        raise NotImplementedError

    def items(self, stream: Any, most: int | None = None) -> list[Any]:
        """Read a stream, or its first items."""
        raise NotImplementedError

    def collect(self, make: Callable[[], Any]) -> list[Any]:
        return self.items(self.call(make))

    def inside(self, manager: Any, use: Callable[[Any], Any]) -> Any:
        """Enter a (stream) manager, use what it gives, leave it."""
        raise NotImplementedError

    def close(self) -> None:
        gc.collect()
        gc.freeze()  # what a test leaves behind lives on: the next collections need not look at it


class SyncDriver(Driver):
    def call(self, make: Callable[[], Any]) -> Any:
        return make()

    def items(self, stream: Any, most: int | None = None) -> list[Any]:
        found = []
        for item in stream:
            found.append(item)
            if len(found) == most:
                break
        return found

    def inside(self, manager: Any, use: Callable[[Any], Any]) -> Any:
        with manager as entered:
            return use(entered)


class AsyncDriver(Driver):
    prefix = "Async"

    def __init__(self, provider: ScriptedProvider, vendor: Vendor = OPENAI) -> None:
        super().__init__(provider, vendor)
        self.loop = asyncio.new_event_loop()

    def call(self, make: Callable[[], Any]) -> Any:
        async def awaited() -> Any:
            made = make()
            return await made if inspect.isawaitable(made) else made

        return self.loop.run_until_complete(awaited())

    def items(self, stream: Any, most: int | None = None) -> list[Any]:
        async def read() -> list[Any]:
            found = []
            async for item in stream:
                found.append(item)
                if len(found) == most:
                    break
            return found

        return self.loop.run_until_complete(read())

    def inside(self, manager: Any, use: Callable[[Any], Any]) -> Any:
        async def entered() -> Any:
            async with manager as value:
                used = use(value)
                if hasattr(used, "__aiter__"):
                    return [item async for item in used]
                return await used if inspect.isawaitable(used) else used

        return self.loop.run_until_complete(entered())

    def close(self) -> None:
        super().close()  # streams that are let go end on the loop
        with contextlib.suppress(RuntimeError):
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class Gemini(Driver):
    """Google's SDK, asked in the words of the others."""

    def ask(self, client: Any, **more: Any) -> Any:
        asked = {**QUESTION, **more}
        contents = [
            {"role": message["role"], "parts": [{"text": message["content"]}]}
            for message in asked.pop("messages")
        ]
        name = "generate_content_stream" if asked.pop("stream", False) else "generate_content"
        models = client.aio.models if self.prefix else client.models
        return self.call(lambda: getattr(models, name)(contents=contents, **asked))

    def _client(self, module: Any, kwargs: dict[str, Any]) -> Any:
        options = {"base_url": self.provider.url}
        client = module.Client(**{"api_key": "test-key-123", "http_options": options, **kwargs})
        self.clients.append(client)  # it closes its connections when it is let go
        return client


class SyncGemini(Gemini, SyncDriver):
    def __init__(self, provider: ScriptedProvider) -> None:
        super().__init__(provider, gemini())
        self.clients: list[Any] = []


class AsyncGemini(Gemini, AsyncDriver):
    def __init__(self, provider: ScriptedProvider) -> None:
        super().__init__(provider, gemini())
        self.clients: list[Any] = []

    def close(self) -> None:
        for client in self.clients:
            self.loop.run_until_complete(client.aio.aclose())
        super().close()


def gemini() -> Vendor:
    """Return what Google's SDK calls things; it is not in every environment."""
    import google.genai

    import posthog_llm.gemini

    path = "/models/m:generateContent"
    create = google.genai.models.Models.generate_content
    return Vendor(google.genai, posthog_llm.gemini, "Client", path, "", create)


DRIVERS: dict[str, Callable[[ScriptedProvider], Driver]] = {
    "sync": SyncDriver,
    "async": AsyncDriver,
    "Anthropic sync": lambda provider: SyncDriver(provider, ANTHROPIC),
    "Anthropic async": lambda provider: AsyncDriver(provider, ANTHROPIC),
}
every_provider = pytest.mark.parametrize("drive", list(DRIVERS), indirect=True)
"""Runs a test with the clients of each provider; without it `drive` is OpenAI's."""
GEMINI: dict[str, Callable[[ScriptedProvider], Driver]] = {
    "Gemini sync": SyncGemini,
    "Gemini async": AsyncGemini,
}
if importlib.util.find_spec("google") is None or importlib.util.find_spec("google.genai") is None:
    GEMINI = {}
every_sdk = pytest.mark.parametrize("drive", [*DRIVERS, *GEMINI], indirect=True)
"""Like `every_provider`, and with Google's client, where it is installed: for tests that ask for
nothing that only the SDKs of the others have."""


def outcome(run: Callable[[], Any]) -> Any:
    """Return what a call gives, value or exception, in a form that compares."""
    try:
        return comparable(run())
    except Exception as error:
        return type(error), str(error)


def comparable(value: Any) -> Any:
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if hasattr(value, "to_dict"):
        return type(value).__name__, value.to_dict()
    return value


def use_callbacks(litellm: Any, callbacks: list[Any]) -> None:
    """Let LiteLLM have these callbacks, and none that an earlier test left."""
    for kind in ("input_callback", "success_callback", "failure_callback"):
        setattr(litellm, kind, [])
        setattr(litellm, f"_async_{kind}", [])
    litellm.callbacks = callbacks
