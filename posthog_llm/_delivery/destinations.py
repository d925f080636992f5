"""Where events go: the official `posthog` client, or any object with its `capture` method.

The `posthog` package is imported on a caller's thread, and nothing on our own threads: other
packages look into `sys.modules` in the middle of a call, and fail on a module that another
thread has half imported.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import inspect
import os
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import wrapt

from .._faults import guarded, warn
from .._imports import imported
from .._narrowing import first_given
from .._running import in_thread
from .._settings import settings

_LATER = ("netrc", "encodings.ascii", "encodings.idna", "encodings.utf_8_sig")
"""Modules otherwise imported with the first event, some on the package's own thread. The child
of a fork during such an import would wait for it forever."""
DEFAULT_HOST = "https://us.i.posthog.com"
_MOST_CLIENTS = 1024
"""Most clients kept for projects; the least recently used is dropped first."""
_TIMEOUT = "timeout_seconds"
_DEFAULT_TIMEOUT = 10.0
"""Default timeout of the official client's `flush`, in seconds."""
_YES = frozenset({"1", "true", "yes", "on"})
_LIFECYCLE = ("flush", "join", "shutdown")


@guarded
def load() -> None:
    """Import everything that our threads and the package's threads will use."""
    if imported("posthog") is None:
        import posthog  # noqa: F401  # pyright: ignore[reportUnusedImport] - for its effect
    for name in _LATER:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):  # the SDKs bring it, and may not have imported it yet
        importlib.import_module("jiter")
    if settings().spool is not None:
        from . import spool  # noqa: F401  # pyright: ignore[reportUnusedImport] - for its effect


def package() -> Any:
    """Return the `posthog` package. Raises `ImportError` if `load` could not import it."""
    module = imported("posthog")
    if module is None:
        raise ImportError("the posthog package was not imported")
    return module


def queued_client(api_key: str, host: str) -> Any:
    """Make a client with background senders. Raises `RuntimeError` if no thread can start."""
    cls = package().Posthog
    made = cls.__new__(cls)
    try:
        made.__init__(api_key, host=host)
    except RuntimeError:
        forget_exit(made)  # half initialized, it would fail at exit
        raise
    return made


def sync_client(api_key: str, host: str, **settings: Any) -> Any:
    """Make a client that sends on the capturing thread."""
    return package().Posthog(api_key, host=host, sync_mode=True, **settings)


def forget_exit(client: Any) -> None:
    """Unregister a client's exit function: `join` in early 7.x."""
    atexit.unregister(getattr(client, "_atexit", client.join))


def is_url(host: str) -> bool:
    """Whether `host` is an http(s) URL with a host name."""
    try:
        parts = urlsplit(host)
    except ValueError:  # such as an unclosed bracket
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


@dataclass(frozen=True, slots=True)
class Project:
    """A destination for `posthog_client`: one of many projects, for example one per tenant.

        client.chat.completions.create(..., posthog_client=Project("phc_...", host="https://..."))

    Projects need no threads of their own: a few threads that all projects share send their
    events. Equal projects are one destination.
    """

    api_key: str
    """The project's key, `phc_...`."""
    host: str = DEFAULT_HOST
    """URL of its PostHog instance."""

    def capture(self, event: str, **arguments: Any) -> str | None:
        """Send one event now, as `posthog.Posthog.capture` does in sync mode."""
        answer: str | None = _client_of(self).capture(event, **arguments)
        return answer

    def capture_ai(self, event: str, **arguments: Any) -> str | None:
        """Send one event over the AI lane, which accepts larger events, if there is one."""
        client = _client_of(self)
        answer: str | None = getattr(client, "capture_ai", client.capture)(event, **arguments)
        return answer


@functools.lru_cache(maxsize=_MOST_CLIENTS)
def _client_of(project: Project) -> Any:
    load()
    return sync_client(project.api_key, project.host)


class Timeout:
    """The time budget of one call of `flush`, `join` or `shutdown`."""

    def __init__(self, method: Any, args: Any, kwargs: Any) -> None:
        self._args, self._kwargs = args, kwargs
        self._is_taken = _TIMEOUT in (parameters(getattr(method, "__func__", method)) or ())
        given = kwargs.get(_TIMEOUT, args[0] if args else _DEFAULT_TIMEOUT)
        self.seconds = given if isinstance(given, (int, float)) else None
        """`None` means no limit."""
        self._until = time.monotonic() + (self.seconds or 0.0)

    def left(self) -> tuple[Any, Any]:
        """Return the call's arguments, with the remaining time as its timeout."""
        if self.seconds is None or not self._is_taken:
            return self._args, self._kwargs
        left = max(0.0, self._until - time.monotonic())
        if self._args:
            return (left, *self._args[1:]), self._kwargs
        return (), {**self._kwargs, _TIMEOUT: left}


@functools.lru_cache(maxsize=256)
def parameters(function: Any) -> frozenset[str] | None:
    """Return the parameter names of a function; `None` if it accepts any."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in found):
        return None
    return frozenset(parameter.name for parameter in found)


_passing: ContextVar[bool] = ContextVar("posthog_llm_passing", default=False)
"""Whether we are flushing a client, or the caller's own flush has already delivered our events."""


class Destinations:
    """Finds an event's client, and makes `flush` of official clients deliver our events first."""

    def __init__(self, deliver: Callable[[Any, float | None], bool]) -> None:
        self._shared: dict[Project, Any] = {}
        """Official clients that we made. The newest versions survive a fork by themselves."""
        self._deliver = guarded(deliver)
        """Submits everything that is waiting for a client, within a timeout."""
        self._warned = False
        self._hooked: dict[tuple[type, str], object] = {}
        self.forget()

    def forget(self) -> None:
        """Reset: in a forked child."""
        self._is_over = False
        """Whether interpreter exit has used up its time."""
        self._known: dict[int, weakref.ref[Any]] = {}
        """Every attached client, by its `id`: a client's class may redefine `==`."""
        self._replacements: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def find(self, client: Any) -> Any:
        """Return `client`, or the default of the environment or the `posthog` module."""
        if is_mock():
            return None
        found = self._usable_client(client) if client is not None else self._default()
        if found is None and not self._warned:
            self._warned = True
            warn(
                "no PostHog project is configured, so no events are sent. Set "
                "POSTHOG_API_KEY (and POSTHOG_HOST), or pass posthog_client=posthog.Posthog(...)"
            )
        return found

    def _default(self) -> Any:
        project = environment()
        if project.api_key:
            return self._shared_client(project)
        module = imported("posthog")
        return self._usable_client(module) if is_configured(module) else None

    def find_for(self, project: Project, filtered: bool) -> Any:
        """Return a client that may send what an earlier process left; `None` if there is none.

        `filtered`: the event was captured for a client with a `before_send`, so only a client of
        this process that also has one may send it.
        """
        if is_mock() or imported("posthog") is None:
            return None
        for client in (self._default(), *(ref() for ref in list(self._known.values()))):
            found, official = project_of(client), official_client(client)
            if found == project and (not filtered or getattr(official, "before_send", None)):
                return self._usable_client(client)
        return None if filtered else project

    def _shared_client(self, project: Project) -> Any:
        if project not in self._shared or _has_lost_its_senders(self._shared[project]):
            try:
                self._shared[project] = queued_client(project.api_key, project.host)
            except RuntimeError:  # no thread can start: the process is ending, or has too many
                self._shared[project] = project
        return self._shared[project]

    def _usable_client(self, client: Any) -> Any:
        """Return `client`, or a replacement if its sender threads are gone.

        They are gone in a forked child with early posthog 7.x, and after its own `shutdown`.
        """
        if isinstance(client, Project):
            package()
        if getattr(client, "default_client", client) is None:
            _set_up_module(client)
        official = official_client(client)
        if not _has_lost_its_senders(official):
            return client
        if official not in self._replacements:
            self._replacements[official] = _like(official)
        return self._replacements[official]

    def _usable(self, client: Any) -> Any:
        official = official_client(client)
        with contextlib.suppress(TypeError):  # an object without weak references
            return self._replacements.get(official, client)
        return client

    @guarded
    def attach(self, client: Any) -> bool:
        """Make `flush`, `join` and `shutdown` of an official client deliver our events first.

        Nothing is set on the client itself, which the application may copy or pickle. Returns
        whether the client is new.
        """
        module: Any = imported("posthog")
        if client is None:
            client = module
        if client is None or isinstance(client, Project) or self._knows(client):
            return False
        for cls in _official_classes(module.Client if client is module else client.__class__):
            for name in _LIFECYCLE:
                self._hook(cls, name)
        with contextlib.suppress(TypeError):  # an object without weak references
            known, key = self._known, id(client)
            known[key] = weakref.ref(client, partial(known.pop, key))  # see `event_ids`
        return True

    def _knows(self, client: Any) -> bool:
        known = self._known.get(id(client))
        return known is not None and known() is client

    def _hook(self, cls: type, name: str) -> None:
        method, first = cls.__dict__.get(name), object()
        if callable(method) and self._hooked.setdefault((cls, name), first) is first:
            is_async = inspect.iscoroutinefunction(method)
            before = self._first_deliver_async if is_async else self._first_deliver
            setattr(cls, name, wrapt.FunctionWrapper(method, before))

    def _is_filled(self, client: Any) -> bool:
        """Whether a client being flushed may have events of ours to wait for."""
        if _passing.get() or self._is_over:
            return False
        module = imported("posthog")
        return self._knows(client) or getattr(module, "default_client", None) is client

    def _first_deliver(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        if not self._is_filled(client):
            return wrapped(*args, **kwargs)
        given = Timeout(wrapped, args, kwargs)
        self._deliver(self._usable(client), given.seconds)
        args, kwargs = given.left()
        with passing():
            return wrapped(*args, **kwargs)

    async def _first_deliver_async(self, wrapped: Any, client: Any, args: Any, kwargs: Any) -> Any:
        if not self._is_filled(client):
            return await wrapped(*args, **kwargs)
        # The client's event loop must keep running: it is what accepts our events.
        import asyncio

        given = Timeout(wrapped, args, kwargs)
        deliver = functools.partial(self._deliver, self._usable(client), given.seconds)
        await in_thread(asyncio.get_running_loop(), deliver)
        args, kwargs = given.left()
        with passing():
            return await wrapped(*args, **kwargs)

    @guarded
    def wait_no_longer(self, clients: Iterable[Any]) -> None:
        """Keep clients from blocking interpreter exit: early 7.x clients wait forever."""
        self._is_over = True
        for client in clients:
            if not hasattr(client, "_atexit"):
                forget_exit(client)


@contextlib.contextmanager
def passing() -> Generator[None]:
    """Make `flush` of official clients skip our delivery inside the block."""
    before = _passing.get()
    _passing.set(True)
    try:
        yield
    finally:
        _passing.set(before)  # not `reset(token)`, which fails in another context


def flush(client: Any, timeout: float) -> None:
    """Call a client's own `flush`, with `timeout` seconds if it accepts a timeout."""
    method = getattr(client, "flush", None)
    if not callable(method) or inspect.iscoroutinefunction(method):
        return
    names = parameters(getattr(method, "__func__", method))
    with passing():
        if names is None or "timeout_seconds" in names:
            method(timeout)
        elif not is_queued(official_client(client)):  # an older one waits without limit
            method()


def official_client(client: Any) -> Any:
    """Return the client behind the `posthog` module, or `client` itself."""
    return first_given(getattr(client, "default_client", None), client)


def _official_classes(cls: Any) -> Iterator[type]:
    """Yield the classes of the official package that a client is an instance of."""
    for base in getattr(cls, "__mro__", ()):
        if _is_official(base):
            yield base


def _is_official(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "posthog"


def is_queued(client: Any) -> bool:
    """Whether a client is the official one, with background senders."""
    module = imported("posthog.client")
    if module is None or not isinstance(client, module.Client):
        return False
    sends = getattr(client, "send", False)  # a mock passes `isinstance`, but lacks this
    return bool(sends and not client.sync_mode and not client.disabled)


def has_own_capture(client: Any) -> bool:
    """Whether `capture` is the official package's, not that of an application's subclass."""
    if isinstance(client, Project):  # it returns what an official client returns
        return True
    if "capture" in getattr(client, "__dict__", ()):
        return False
    owners = (cls for cls in type(client).__mro__ if "capture" in cls.__dict__)
    return _is_official(next(owners, object))


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
    """Whether `POSTHOG_MOCK` is set: everything runs, nothing is sent."""
    return os.environ.get("POSTHOG_MOCK", "").strip().lower() in _YES


def is_private(client: Any) -> bool:
    """Whether a client, or the `posthog` module, is in privacy mode."""
    settings = (getattr(o, "privacy_mode", None) for o in (client, imported("posthog")))
    return any(isinstance(setting, (bool, int, str)) and bool(setting) for setting in settings)


def _has_lost_its_senders(official: Any) -> bool:
    senders: Any = getattr(official, "consumers", None) or ()
    return is_queued(official) and bool(senders) and not any(s.is_alive() for s in senders)


def _like(client: Any) -> Any:
    """Make a client with another's settings that sends on the capturing thread."""
    names = ("before_send", "super_properties", "disable_geoip", "privacy_mode", "gzip", "timeout")
    settings = {name: getattr(client, name) for name in names if hasattr(client, name)}
    return sync_client(client.api_key, client.host, **settings)


def _set_up_module(module: Any) -> None:
    """Make the `posthog` module's own client, without threads if the process is ending."""
    try:
        module.setup()
    except RuntimeError:
        module.sync_mode = True
        module.setup()


def environment() -> Project:
    """Return the project set in the environment; its key is empty if there is none."""
    key = os.environ.get("POSTHOG_API_KEY") or os.environ.get("POSTHOG_PROJECT_API_KEY") or ""
    host = os.environ.get("POSTHOG_HOST") or os.environ.get("POSTHOG_API_URL") or DEFAULT_HOST
    return Project(key.strip(), host.strip())


def is_configured(module: Any) -> bool:
    """Whether the `posthog` module (`None` if not imported) has a project key or a client."""
    return any(getattr(module, name, None) for name in ("project_api_key", "api_key")) or bool(
        getattr(module, "default_client", None)
    )
