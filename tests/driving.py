"""One test body for the sync and the async client, and for ours beside the bare SDK."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
from collections.abc import Callable
from typing import Any

import openai as sdk

from posthog_llm import openai as ours
from posthog_llm.testing import ScriptedProvider

Make = Callable[[Any], Any]


class Driver:
    """Makes clients for a scripted provider and runs calls on them, whichever their kind."""

    names = ("OpenAI", "AzureOpenAI")

    def __init__(self, provider: ScriptedProvider) -> None:
        self.provider = provider

    def ours(self, **kwargs: Any) -> Any:
        return self._client(ours, kwargs)

    def bare(self, **kwargs: Any) -> Any:
        return self._client(sdk, kwargs)

    def _client(self, module: Any, kwargs: dict[str, Any]) -> Any:
        kwargs = {"api_key": "test-key-123", "max_retries": 0, **kwargs}
        if "http_client" not in kwargs:
            kwargs = {"base_url": self.provider.base_url, **kwargs}
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


class SyncDriver(Driver):
    names = ("OpenAI", "AzureOpenAI")

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
    names = ("AsyncOpenAI", "AsyncAzureOpenAI")

    def __init__(self, provider: ScriptedProvider) -> None:
        super().__init__(provider)
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
        gc.collect()
        with contextlib.suppress(RuntimeError):
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        super().close()


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
