"""Where events go: the official `posthog` client, or whatever has its `capture`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import inspect
import logging
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import wrapt

from ..faults import guarded
from .project import DEFAULT_HOST, Project

log = logging.getLogger("posthog_llm")
_YES = frozenset({"1", "true", "yes", "on"})


class Destinations:
    """Finds the client an event goes to, and makes the client's own `flush` wait for us."""

    def __init__(self, deliver: Callable[[Any, float | None], bool]) -> None:
        self._deliver = deliver
        """Hands over everything that is waiting for a client, within some seconds."""
        self._warned = False
        self.forget()

    def forget(self) -> None:
        """Make clients anew: in a forked child, where older ones have lost their threads."""
        self._shared: dict[Project, Any] = {}
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        """Every client that was attached."""
        self._stand_ins: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def find(self, client: Any, otherwise: Any = None) -> Any:
        """Return `client`, or the one that the environment or the `posthog` module stands for.

        `otherwise`: where neither does.
        """
        if is_mock():
            return None
        found = self._living(client) if client is not None else self._default()
        if found is None and otherwise is not None:
            found = self._living(otherwise)
        if found is None and not self._warned:
            self._warned = True
            log.warning(
                "posthog_llm: no PostHog project is configured, so no events are sent. Set "
                "POSTHOG_API_KEY (and POSTHOG_HOST), or pass posthog_client=posthog.Posthog(...)"
            )
        return found

    def _default(self) -> Any:
        project = environment()
        if project.api_key:
            return self._shared_client(project)
        module = sys.modules.get("posthog")
        is_configured = module is not None and _is_configured(module)
        return self._living(module) if is_configured else None

    def find_for(self, project: Project, filtered: bool) -> Any:
        """Return a client for what an earlier process left; `None`: there is none that may.

        `filtered`: the event was meant for a client with a `before_send`, so only a client of
        this process that has one, too, may send it.
        """
        if is_mock():
            return None
        for client in (self._default(), *self._known):
            found, official = project_of(client), official_client(client)
            if found == project and (not filtered or getattr(official, "before_send", None)):
                return self._living(client)
        return None if filtered else project

    def _shared_client(self, project: Project) -> Any:
        if project not in self._shared:
            from posthog import Posthog

            try:
                self._shared[project] = Posthog(project.api_key, host=project.host)
            except RuntimeError:  # the process is ending, and takes no new threads
                self._shared[project] = project
        return self._shared[project]

    def _living(self, client: Any) -> Any:
        """Return `client`, or one like it where its senders are gone.

        They are in a forked child of posthog's first 7.x, and after its own `shutdown`.
        """
        if getattr(client, "default_client", client) is None:
            _set_up_module(client)
        official = official_client(client)
        senders = getattr(official, "consumers", None)
        if not is_queued(official) or not senders or any(s.is_alive() for s in senders):
            return client
        if official not in self._stand_ins:
            self._stand_ins[official] = _like(official)
        return self._stand_ins[official]

    def _stand_in(self, client: Any) -> Any:
        official = official_client(client)
        with contextlib.suppress(TypeError):  # an object that nothing can refer to weakly
            return self._stand_ins.get(official, client)
        return client

    @guarded
    def attach(self, client: Any) -> bool:
        """Make `flush`, `join` and `shutdown` of a client deliver what was captured before.

        True when the client is a new one.
        """
        if client is None:
            client = sys.modules.get("posthog")
        if client is None or isinstance(client, Project):
            return False
        with contextlib.suppress(TypeError):  # an object that nothing can refer to weakly
            if client in self._known:
                return False
            self._known.add(client)
        is_new = False
        for name in ("flush", "join", "shutdown"):
            method = getattr(client, name, None)
            if callable(method) and not hasattr(method, "_self_posthog_llm"):
                wrapped: Any = wrapt.FunctionWrapper(method, self._around(method, client))
                wrapped._self_posthog_llm = True
                with contextlib.suppress(AttributeError, TypeError):  # an object that is closed
                    setattr(client, name, wrapped)
                    is_new = True
        return is_new

    def _around(self, method: Any, client: Any) -> Callable[..., Any]:
        def first_deliver(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            self._deliver(self._stand_in(client), _timeout(args, kwargs))
            return wrapped(*args, **kwargs)

        async def first_deliver_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            # The client's loop must go on meanwhile: it is what takes our events in.
            import asyncio

            deliver = functools.partial(
                self._deliver, self._stand_in(client), _timeout(args, kwargs)
            )
            await asyncio.get_running_loop().run_in_executor(None, deliver)
            return await wrapped(*args, **kwargs)

        return first_deliver_async if inspect.iscoroutinefunction(method) else first_deliver


def flush(client: Any, timeout: float) -> None:
    """Flush a client by its own `flush`, within `timeout` seconds where it takes them."""
    method = getattr(client, "flush", None)
    method = getattr(method, "__wrapped__", method)
    if not callable(method) or inspect.iscoroutinefunction(method):
        return
    names = parameters(getattr(method, "__func__", method))
    if names is None or "timeout_seconds" in names:
        method(timeout)
    elif not is_queued(official_client(client)):  # an older one waits, without a limit
        method()


@guarded
def wait_no_longer(client: Any) -> None:
    """Keep a client of the first 7.x from holding up interpreter exit: it waits without limit."""
    if not hasattr(client, "_atexit"):
        cls: Any = client.__class__
        atexit.unregister(cls.join.__get__(client))


def official_client(client: Any) -> Any:
    """Return the client behind the `posthog` module, or `client` itself."""
    return getattr(client, "default_client", None) or client


def is_queued(client: Any) -> bool:
    """Whether a client is the official one, with senders in the background."""
    module = sys.modules.get("posthog.client")
    if module is None or not isinstance(client, module.Client):
        return False
    return bool(client.send and not client.sync_mode and not client.disabled)


def project_of(client: Any) -> Project | None:
    """Return the project that an official client sends to; `None` for other objects."""
    if isinstance(client, Project):
        return client
    official = official_client(client)
    key, host = getattr(official, "api_key", None), getattr(official, "host", None)
    if isinstance(key, str) and isinstance(host, str) and hasattr(official, "sync_mode"):
        return Project(key, host)
    return None


def is_mock() -> bool:
    """Whether `POSTHOG_MOCK` asks that everything runs and nothing leaves."""
    return os.environ.get("POSTHOG_MOCK", "").strip().lower() in _YES


def is_private(client: Any) -> bool:
    """Whether a client, or the `posthog` module, is in privacy mode."""
    settings = (getattr(o, "privacy_mode", None) for o in (client, sys.modules.get("posthog")))
    return any(isinstance(setting, (bool, int, str)) and bool(setting) for setting in settings)


@functools.lru_cache(maxsize=256)
def parameters(function: Any) -> frozenset[str] | None:
    """Return the names that a function takes; `None` where it takes any."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return frozenset(parameter.name for parameter in found)


def _like(client: Any) -> Any:
    """Make a client with the settings of another, that sends on the thread that captures."""
    from posthog import Posthog

    names = ("before_send", "super_properties", "disable_geoip", "privacy_mode", "gzip", "timeout")
    settings = {name: getattr(client, name) for name in names if hasattr(client, name)}
    return Posthog(client.api_key, host=client.host, sync_mode=True, **settings)


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


def environment() -> Project:
    """Return the project that the environment names; its key is empty where there is none."""
    key = os.environ.get("POSTHOG_API_KEY") or os.environ.get("POSTHOG_PROJECT_API_KEY") or ""
    host = os.environ.get("POSTHOG_HOST") or os.environ.get("POSTHOG_API_URL") or DEFAULT_HOST
    return Project(key.strip(), host.strip())


def _is_configured(module: Any) -> bool:
    return any(getattr(module, name, None) for name in ("project_api_key", "api_key")) or bool(
        getattr(module, "default_client", None)
    )
