"""Where events go: the official `posthog` client, or whatever has its `capture`."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import wrapt

from ..event import Event
from ..faults import guarded

log = logging.getLogger("posthog_llm")
DEFAULT_HOST = "https://us.i.posthog.com"
_BATCH_LIMIT = 800 * 1024
"""Bytes of JSON beyond which the official client drops an event of its analytics lane (900 KiB,
with room for what the client itself adds)."""
_YES = frozenset({"1", "true", "yes", "on"})


class Destinations:
    """Finds the client an event goes to, and makes the client's own `flush` wait for us."""

    def __init__(self, deliver: Callable[[float | None], bool]) -> None:
        self._deliver = deliver
        """Hands over everything that is waiting, within some seconds; see `Worker.flush`."""
        self._shared: dict[tuple[str, str], Any] = {}
        self._warned = False
        self._uses_module = False

    def send(self, event: Event, client: Any) -> None:
        """Hand one event over, if there is somebody to take it."""
        if is_mock() or client is None:
            return
        if getattr(client, "default_client", client) is None:
            _set_up_module(client)
        capture = client.capture
        # An event too large for the analytics lane has one of its own, where there is one.
        roomy = getattr(client, "capture_ai", None)
        if callable(roomy) and (
            getattr(client, "enable_full_ai_capture", False) or _is_large(event)
        ):
            capture = roomy
        capture(**_taken(capture, event))

    def find(self, client: Any) -> Any:
        """Return `client`, or the one that the environment or the `posthog` module stands for."""
        if client is not None:
            return client
        key = os.environ.get("POSTHOG_API_KEY") or os.environ.get("POSTHOG_PROJECT_API_KEY")
        if key:
            return self._shared_client(key.strip(), _host())
        module = sys.modules.get("posthog")
        if module is not None and _is_configured(module):
            self._uses_module = True
            return module
        if not self._warned and not is_mock():
            self._warned = True
            log.warning(
                "posthog_llm: no PostHog project is configured, so no events are sent. Set "
                "POSTHOG_API_KEY (and POSTHOG_HOST), or pass posthog_client=posthog.Posthog(...)"
            )
        return None

    def _shared_client(self, key: str, host: str) -> Any:
        if (key, host) not in self._shared:
            from posthog import Posthog

            try:
                self._shared[key, host] = Posthog(key, host=host)
            except RuntimeError:  # the process is ending, and takes no new threads
                self._shared[key, host] = Posthog(key, host=host, sync_mode=True)
        return self._shared[key, host]

    def forget_ours(self) -> None:
        """Make clients anew: in a forked child, where older ones have lost their threads."""
        self._shared.clear()

    @guarded
    def flush_ours(self, timeout: float) -> None:
        """Flush the clients that nobody else may know of, `timeout` seconds each at most."""
        module = [sys.modules["posthog"]] if self._uses_module else []
        for client in (*self._shared.values(), *module):
            taken = _parameters(getattr(client.flush, "__func__", client.flush))
            # Older clients wait without a limit.
            args = (timeout,) if taken is None or "timeout_seconds" in taken else ()
            client.flush(*args)

    @guarded
    def attach(self, client: Any) -> bool:
        """Make `flush`, `join` and `shutdown` of a client deliver what was captured before.

        True when the client is a new one.
        """
        if client is None:
            client = sys.modules.get("posthog")
        is_new = False
        for name in ("flush", "join", "shutdown"):
            method = getattr(client, name, None)
            if callable(method) and not hasattr(method, "_self_posthog_llm"):
                wrapped: Any = wrapt.FunctionWrapper(method, self._around(method))
                wrapped._self_posthog_llm = True
                with contextlib.suppress(AttributeError, TypeError):  # an object that is closed
                    setattr(client, name, wrapped)
                    is_new = True
        return is_new

    def _around(self, method: Any) -> Callable[..., Any]:
        def first_deliver(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            self._deliver(_timeout(args, kwargs))
            return wrapped(*args, **kwargs)

        async def first_deliver_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            # The client's loop must go on meanwhile: it is what takes our events in.
            import asyncio

            deliver = functools.partial(self._deliver, _timeout(args, kwargs))
            await asyncio.get_running_loop().run_in_executor(None, deliver)
            return await wrapped(*args, **kwargs)

        return first_deliver_async if inspect.iscoroutinefunction(method) else first_deliver


def _set_up_module(module: Any) -> None:
    """Make the `posthog` module's own client, without threads where the process is ending."""
    try:
        module.setup()
    except RuntimeError:
        module.sync_mode = True
        module.setup()


def _timeout(args: Any, kwargs: Any) -> float | None:
    given = kwargs.get("timeout_seconds", args[0] if args else 10.0)
    return given if isinstance(given, (int, float)) else None


def is_mock() -> bool:
    """Whether `POSTHOG_MOCK` asks that everything runs and nothing leaves."""
    return os.environ.get("POSTHOG_MOCK", "").strip().lower() in _YES


def is_private(client: Any) -> bool:
    """Whether a client, or the `posthog` module, is in privacy mode."""
    settings = (getattr(o, "privacy_mode", None) for o in (client, sys.modules.get("posthog")))
    return any(isinstance(setting, (bool, int, str)) and bool(setting) for setting in settings)


def _host() -> str:
    return os.environ.get("POSTHOG_HOST") or os.environ.get("POSTHOG_API_URL") or DEFAULT_HOST


def _is_configured(module: Any) -> bool:
    return any(getattr(module, name, None) for name in ("project_api_key", "api_key")) or bool(
        getattr(module, "default_client", None)
    )


def _is_large(event: Event) -> bool:
    if event.size < _BATCH_LIMIT:
        return False
    return len(json.dumps(event.properties, default=str)) > _BATCH_LIMIT


def _taken(capture: Any, event: Event) -> dict[str, Any]:
    """Return the arguments for `capture`, less those that a caller's own object lacks."""
    arguments = {
        "event": event.name,
        "distinct_id": event.distinct_id,
        "properties": event.properties,
        "timestamp": event.timestamp,
        "uuid": event.uuid,
    }
    if event.groups:
        arguments["groups"] = event.groups
    names = _parameters(getattr(capture, "__func__", capture))
    return arguments if names is None else {k: v for k, v in arguments.items() if k in names}


@functools.lru_cache(maxsize=256)
def _parameters(function: Any) -> frozenset[str] | None:
    """Return the names that a function takes; `None` where it takes any."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return frozenset(parameter.name for parameter in found)
