"""Where events go: the official `posthog` client, or whatever has its `capture`.

The `posthog` package is imported on a caller's thread. Nothing is imported on a thread of ours:
other packages look into `sys.modules` in the middle of a call, and fail at what another thread
has half imported.
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
from .._settings import settings

_LATER = ("netrc", "encodings.ascii", "encodings.idna", "encodings.utf_8_sig")
"""What is imported with the first event otherwise, some of it on the package's own thread. The
child of a fork amid that would wait for the import for good."""
DEFAULT_HOST = "https://us.i.posthog.com"
_MOST_CLIENTS = 1024
"""Clients that are kept ready; the one that was not used for longest is let go of first."""
_TIMEOUT = "timeout_seconds"
_DEFAULT_TIMEOUT = 10.0
"""Seconds that the official client's `flush` takes where its caller names none."""
_YES = frozenset({"1", "true", "yes", "on"})
_LIFECYCLE = ("flush", "join", "shutdown")


@guarded
def load() -> None:
    """Import all that our threads, and those of the package, will use."""
    if imported("posthog") is None:
        import posthog  # noqa: F401  # pyright: ignore[reportUnusedImport] - for its effect
    for name in _LATER:
        importlib.import_module(name)
    if settings().spool is not None:
        from . import spool  # noqa: F401  # pyright: ignore[reportUnusedImport] - for its effect


def package() -> Any:
    """Return the `posthog` package. Raises `ImportError` where `load` could not import it."""
    module = imported("posthog")
    if module is None:
        raise ImportError("the posthog package was not imported")
    return module


def queued_client(api_key: str, host: str) -> Any:
    """Make a client with senders in the background. Raises `RuntimeError` where none can start."""
    cls = package().Posthog
    made = cls.__new__(cls)
    try:
        made.__init__(api_key, host=host)
    except RuntimeError:
        forget_exit(made)  # it would fail there, half made as it is
        raise
    return made


def sync_client(api_key: str, host: str, **settings: Any) -> Any:
    """Make a client that sends on the thread that captures."""
    return package().Posthog(api_key, host=host, sync_mode=True, **settings)


def forget_exit(client: Any) -> None:
    """Undo what a client registered for interpreter exit: `join` in the first 7.x."""
    atexit.unregister(getattr(client, "_atexit", client.join))


def is_url(host: str) -> bool:
    """Whether a PostHog can be reached at `host`: a http(s) URL that names one."""
    try:
        parts = urlsplit(host)
    except ValueError:  # such as a bracket that is never closed
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


@dataclass(frozen=True, slots=True)
class Project:
    """A destination for `posthog_client`: one project among many, such as a tenant's own.

        client.chat.completions.create(..., posthog_client=Project("phc_...", host="https://..."))

    Costs no thread, however many there are: events are sent by a few threads that all projects
    share. Equal projects are one destination.
    """

    api_key: str
    """The project's key, `phc_...`."""
    host: str = DEFAULT_HOST
    """URL of its PostHog."""

    def capture(self, event: str, **arguments: Any) -> str | None:
        """Send one event now, as `posthog.Posthog.capture` does in sync mode."""
        answer: str | None = _client_of(self).capture(event, **arguments)
        return answer

    def capture_ai(self, event: str, **arguments: Any) -> str | None:
        """Send one event over the AI lane, which takes larger ones, where there is one."""
        client = _client_of(self)
        answer: str | None = getattr(client, "capture_ai", client.capture)(event, **arguments)
        return answer


@functools.lru_cache(maxsize=_MOST_CLIENTS)
def _client_of(project: Project) -> Any:
    load()
    return sync_client(project.api_key, project.host)


class Timeout:
    """What one call of `flush`, `join` or `shutdown` may take."""

    def __init__(self, method: Any, args: Any, kwargs: Any) -> None:
        self._args, self._kwargs = args, kwargs
        self._is_taken = _TIMEOUT in (parameters(getattr(method, "__func__", method)) or ())
        given = kwargs.get(_TIMEOUT, args[0] if args else _DEFAULT_TIMEOUT)
        self.seconds = given if isinstance(given, (int, float)) else None
        """`None`: as many as it takes."""
        self._until = time.monotonic() + (self.seconds or 0.0)

    def left(self) -> tuple[Any, Any]:
        """Return the arguments of the call, with the time that is left of it now."""
        if self.seconds is None or not self._is_taken:
            return self._args, self._kwargs
        left = max(0.0, self._until - time.monotonic())
        if self._args:
            return (left, *self._args[1:]), self._kwargs
        return (), {**self._kwargs, _TIMEOUT: left}


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


_passing: ContextVar[bool] = ContextVar("posthog_llm_passing", default=False)
"""Whether a client is flushed by us, or inside a call of its user's that has delivered."""


class Destinations:
    """Finds the client an event goes to, and makes the official clients' `flush` wait for us."""

    def __init__(self, deliver: Callable[[Any, float | None], bool]) -> None:
        self._shared: dict[Project, Any] = {}
        """Official clients of ours. The newest live on in a forked child by themselves."""
        self._deliver = guarded(deliver)
        """Hands over everything that is waiting for a client, within some seconds."""
        self._warned = False
        self._hooked: dict[tuple[type, str], object] = {}
        self.forget()

    def forget(self) -> None:
        """Begin anew: in a forked child."""
        self._is_over = False
        """Whether interpreter exit has waited for as long as it may."""
        self._known: dict[int, weakref.ref[Any]] = {}
        """Every client that was attached, by its `id`: its own `==` is its user's affair."""
        self._replacements: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def find(self, client: Any) -> Any:
        """Return `client`, or the one that the environment or the `posthog` module stands for."""
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
        """Return a client for what an earlier process left; `None`: there is none that may.

        `filtered`: the event was meant for a client with a `before_send`, so only a client of
        this process that has one, too, may send it.
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
            except RuntimeError:  # no thread can be started: the process ends, or has too many
                self._shared[project] = project
        return self._shared[project]

    def _usable_client(self, client: Any) -> Any:
        """Return `client`, or one like it where its senders are gone.

        They are in a forked child of posthog's first 7.x, and after its own `shutdown`.
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
        with contextlib.suppress(TypeError):  # an object that nothing can refer to weakly
            return self._replacements.get(official, client)
        return client

    @guarded
    def attach(self, client: Any) -> bool:
        """Make `flush`, `join` and `shutdown` of an official client deliver what came before.

        Nothing is set on the client itself, which its user may copy or pickle. True when it is
        a new one.
        """
        module: Any = imported("posthog")
        if client is None:
            client = module
        if client is None or isinstance(client, Project) or self._knows(client):
            return False
        for cls in _official_classes(module.Client if client is module else client.__class__):
            for name in _LIFECYCLE:
                self._hook(cls, name)
        with contextlib.suppress(TypeError):  # an object that nothing can refer to weakly
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
        """Whether a client that is flushed may have events of ours to wait for."""
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
        # The client's loop must go on meanwhile: it is what takes our events in.
        import asyncio

        given = Timeout(wrapped, args, kwargs)
        deliver = functools.partial(self._deliver, self._usable(client), given.seconds)
        await asyncio.get_running_loop().run_in_executor(None, deliver)
        args, kwargs = given.left()
        with passing():
            return await wrapped(*args, **kwargs)

    @guarded
    def wait_no_longer(self, clients: Iterable[Any]) -> None:
        """Keep clients from holding up interpreter exit: those of the first 7.x wait forever."""
        self._is_over = True
        for client in clients:
            if not hasattr(client, "_atexit"):
                forget_exit(client)


@contextlib.contextmanager
def passing() -> Generator[None]:
    """Let the official clients' `flush` be their own alone, inside the block."""
    before = _passing.get()
    _passing.set(True)
    try:
        yield
    finally:
        _passing.set(before)  # not a token's reset, which fails in another context


def flush(client: Any, timeout: float) -> None:
    """Flush a client by its own `flush`, within `timeout` seconds where it takes them."""
    method = getattr(client, "flush", None)
    if not callable(method) or inspect.iscoroutinefunction(method):
        return
    names = parameters(getattr(method, "__func__", method))
    with passing():
        if names is None or "timeout_seconds" in names:
            method(timeout)
        elif not is_queued(official_client(client)):  # an older one waits, without a limit
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
    """Whether a client is the official one, with senders in the background."""
    module = imported("posthog.client")
    if module is None or not isinstance(client, module.Client):
        return False
    sends = getattr(client, "send", False)  # a mock of the client passes for one, and lacks it
    return bool(sends and not client.sync_mode and not client.disabled)


def has_own_capture(client: Any) -> bool:
    """Whether `capture` is the official package's, and not a subclass's of the user's."""
    if isinstance(client, Project):  # it hands on what an official client answers
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
    """Whether `POSTHOG_MOCK` asks that everything runs and nothing leaves."""
    return os.environ.get("POSTHOG_MOCK", "").strip().lower() in _YES


def is_private(client: Any) -> bool:
    """Whether a client, or the `posthog` module, is in privacy mode."""
    settings = (getattr(o, "privacy_mode", None) for o in (client, imported("posthog")))
    return any(isinstance(setting, (bool, int, str)) and bool(setting) for setting in settings)


def _has_lost_its_senders(official: Any) -> bool:
    senders: Any = getattr(official, "consumers", None) or ()
    return is_queued(official) and bool(senders) and not any(s.is_alive() for s in senders)


def _like(client: Any) -> Any:
    """Make a client with the settings of another, that sends on the thread that captures."""
    names = ("before_send", "super_properties", "disable_geoip", "privacy_mode", "gzip", "timeout")
    settings = {name: getattr(client, name) for name in names if hasattr(client, name)}
    return sync_client(client.api_key, client.host, **settings)


def _set_up_module(module: Any) -> None:
    """Make the `posthog` module's own client, without threads where the process is ending."""
    try:
        module.setup()
    except RuntimeError:
        module.sync_mode = True
        module.setup()


def environment() -> Project:
    """Return the project that the environment names; its key is empty where there is none."""
    key = os.environ.get("POSTHOG_API_KEY") or os.environ.get("POSTHOG_PROJECT_API_KEY") or ""
    host = os.environ.get("POSTHOG_HOST") or os.environ.get("POSTHOG_API_URL") or DEFAULT_HOST
    return Project(key.strip(), host.strip())


def is_configured(module: Any) -> bool:
    """Whether the `posthog` module names a project, or has a client; `None`: it is not there."""
    return any(getattr(module, name, None) for name in ("project_api_key", "api_key")) or bool(
        getattr(module, "default_client", None)
    )
