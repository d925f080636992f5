"""Process-wide settings: `configure`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ._checks import checked
from ._prices import Price, checked_prices

if TYPE_CHECKING:
    from .types import Destination

_DAY = 86_400.0
_FLAGS = ("keep_errors", "privacy_mode")
_FUNCTIONS = ("on_drop", "before_capture", "redact")


class _Keep:
    """Stands for an argument that was not given."""

    def __repr__(self) -> str:
        return "<unchanged>"


_KEEP: Any = _Keep()


@dataclass(frozen=True, slots=True)
class Spool:
    """A directory that stores events until PostHog has them.

    Several processes may share it. Events are written before they are passed to the `posthog`
    client, and removed when PostHog has accepted them. What a process leaves behind is delivered by
    the next process with the same directory.
    """

    path: str
    """The directory."""
    max_bytes: int = 1 << 30
    """Maximum size of the directory in bytes; beyond it, events are kept only in memory."""
    max_age: float = 7 * _DAY
    """Seconds after which an undelivered event is dropped."""


@dataclass(frozen=True, slots=True)
class Settings:
    """See `configure`."""

    spool: Spool | None = None
    queue_bytes: int = 64 << 20
    on_drop: Callable[[str, str], object] | None = None
    sample_rate: float = 1.0
    keep_errors: bool = False
    before_capture: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None
    redact: Callable[[str], str | None] | None = None
    privacy_mode: bool = False
    gateways: frozenset[str] = frozenset()
    posthog_client: Any = None
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    instrumented: Any = None
    """Where `instrument` sends the calls that it captures; steps go there, too."""


_settings: Settings | None = None
on_change: list[Callable[[], object]] = []
"""Called after each `configure`."""


def forget() -> None:
    """Forget what `configure` and `instrument` set."""
    global _settings
    _settings = None
    for listener in on_change:
        listener()


def settings() -> Settings:
    """Return the current settings: the environment's, until `configure` sets others."""
    global _settings
    if _settings is None:
        path = os.path.expanduser(os.environ.get("POSTHOG_LLM_SPOOL", ""))
        _settings = Settings(spool=Spool(_absolute(path)) if path else None)
    return _settings


def configure(  # noqa: PLR0913 - one keyword a setting
    *,
    spool: Spool | str | os.PathLike[str] | None = _KEEP,
    queue_bytes: int = _KEEP,
    on_drop: Callable[[str, str], object] | None = _KEEP,
    sample_rate: float = _KEEP,
    keep_errors: bool = _KEEP,
    before_capture: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = _KEEP,
    redact: Callable[[str], str | None] | None = _KEEP,
    privacy_mode: bool = _KEEP,
    gateways: Iterable[str] = _KEEP,
    posthog_client: Destination | None = _KEEP,
    prices: Mapping[str, Price] | None = _KEEP,
) -> None:
    """Set what applies to every call of this process; settings not given stay as they are.

    - `spool`: a directory (created with mode 0700), or a `Spool` with limits, in which events
      survive the process. `None`: no spool. `POSTHOG_LLM_SPOOL` sets it, too.
    - `queue_bytes`: maximum memory for undelivered events, in bytes; 64 MiB by default. Beyond it,
      the oldest events first lose their content; whole events are dropped last.
    - `on_drop(uuid, reason)`: called in the worker for each lost event.
    - `sample_rate`: share of calls that become events, 0 to 1. Decided once per trace, by its
      session id, else by its own, so that it is captured completely or not at all.
    - `keep_errors`: whether failed calls become events regardless of sampling.
    - `before_capture(event)`: receives each event as a dict (`event`, `distinct_id`, `properties`,
      `groups`, `timestamp`, `uuid`) in the worker; returns it, changed or not, or `None` to drop
      it. If it raises, the event is not sent.
    - `redact(text)`: receives each text of the content before it is sent, in every event that no
      client's `posthog_redact` handles: manual captures, traces and spans included.
    - `privacy_mode`: whether all content is withheld. No client, context or call can disable it.
    - `gateways`: hosts of your LiteLLM gateways that also use our callback. Requests to them carry
      `x-posthog-llm-span-id`, so that the gateway leaves the event to this process.
    - `posthog_client`: where events go by default: those of clients without one, manual captures,
      traces and spans. `None`: as set in the environment.
    - `prices`: from a model's name to its `Price`. The requested name wins over the served one; a
      price here wins over PostHog's price book and over a reported cost. `None`: no prices.

    Raises `TypeError` or `ValueError` for an invalid value, and `OSError` if the spool's directory
    cannot be created or written.
    """
    given = {name: value for name, value in locals().items() if value is not _KEEP}
    _change({name: _read(name, value) for name, value in given.items()})


def _read(name: str, value: Any) -> Any:
    """Return an argument as `Settings` holds it."""
    read = {"spool": _spool, "gateways": _hosts, "prices": checked_prices}.get(name)
    return value if read is None else read(value)


def _change(changes: dict[str, Any]) -> None:
    global _settings
    for name, value in changes.items():
        _check(name, value)
    _settings = replace(settings(), **changes)
    for listener in on_change:
        listener()


def note_instrumented(client: Any) -> None:
    """Note where `instrument` sends events; `None`: it has no destination of its own."""
    _change({"instrumented": client})


def default_for_steps() -> Any:
    """Return the default destination of steps; `None` if nothing sets one."""
    found = settings()
    return found.posthog_client if found.instrumented is None else found.instrumented


def _check(name: str, value: Any) -> None:
    if name == "posthog_client":
        checked(name, "client", value)
    if name in _FUNCTIONS and value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, not {type(value).__name__}")
    if name in _FLAGS and not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    if name == "queue_bytes" and (not isinstance(value, int) or value < 1 << 20):
        raise ValueError("queue_bytes must be an int of at least 1048576 (1 MiB)")
    if name == "sample_rate":
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"sample_rate must be a number, not {type(value).__name__}")
        if not 0 <= value <= 1:
            raise ValueError(f"sample_rate must be from 0 to 1, not {value}")


def _hosts(given: Any) -> frozenset[str]:
    if isinstance(given, str) or not all(isinstance(host, str) for host in given):
        raise TypeError("gateways must be a collection of host names, such as ['llm.internal']")
    if wrong := [host for host in given if not host or set(host) & set("/:@?# ")]:
        raise ValueError(f"gateways: {wrong[0]!r} must be only a host name, without scheme or port")
    return frozenset(host.lower() for host in given)


def _absolute(path: str) -> str:
    """Return the absolute path now: the program may change its directory later."""
    try:
        return os.path.abspath(path)
    except OSError:  # the working directory is gone
        return path


def _spool(given: Any) -> Spool | None:
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        given = Spool(os.fspath(given))
    if not isinstance(given, Spool):
        raise TypeError(f"spool must be a path, a Spool or None, not {type(given).__name__}")
    place = replace(given, path=_absolute(given.path))
    os.makedirs(place.path, mode=0o700, exist_ok=True)
    if not os.access(place.path, os.W_OK | os.X_OK):
        raise PermissionError(f"spool: {place.path} is not writable")
    return place
