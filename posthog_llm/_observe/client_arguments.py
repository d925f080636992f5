"""The `posthog_*` arguments of a client: defaults for its calls, and settings of its own."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from .._checks import redactor
from .._context import NOTHING, merged
from .._exchange import Arguments
from .._roots import note_redactor, waiting
from .call_arguments import NAMES, extract
from .call_queue import call_queue

SETTINGS: dict[str, Any] = {
    "posthog_stream_usage": True,
    "posthog_redact": None,
    "posthog_request_user": False,
    "posthog_openrouter": False,
}
"""The arguments that only a client has, with their defaults."""


class ClientSettings:
    """What the seam reads of a client. Our clients inherit it; `instrument` sets the same
    attributes on the SDKs' own classes."""

    _posthog: Arguments = NOTHING
    _posthog_stream_usage: bool = True
    _posthog_redact: Any = None
    _posthog_request_user: bool = False
    _posthog_openrouter: bool = False


class ClientGiven(NamedTuple):
    """Our arguments of one client."""

    defaults: Arguments | None
    """Defaults for its calls; `None` if none were given."""
    settings: dict[str, Any]

    def set_on(self, client: Any) -> None:
        client._posthog = self.defaults or NOTHING
        self._set_settings(client, SETTINGS)

    def set_on_copy(self, client: Any, original: Any) -> None:
        """Set them on a copy, which has everything else from `original`."""
        old = original._posthog
        client._posthog = merged(old, self.defaults) if self.defaults else old
        self._set_settings(client, {name: getattr(original, f"_{name}") for name in SETTINGS})

    def _set_settings(self, client: Any, others: dict[str, Any]) -> None:
        for name, value in {**others, **self.settings}.items():
            setattr(client, f"_{name}", value)
        if client._posthog.privacy_mode:
            waiting.for_privacy = True
        if self.defaults is not None and self.defaults.client is not None:
            call_queue.attach(self.defaults.client)


def extract_for_client(kwargs: dict[str, Any]) -> ClientGiven:
    """Extract the arguments of a client from `kwargs`.

    Raises `TypeError` for a value of the wrong type.
    """
    defaults = extract(kwargs)
    settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
    for name in ("posthog_stream_usage", "posthog_request_user", "posthog_openrouter"):
        if not isinstance(settings.get(name, True), bool):
            raise TypeError(f"{name} must be True or False")
    note_redactor(redactor(settings.get("posthog_redact")))
    return ClientGiven(defaults, settings)


def signature(sdk: Any) -> inspect.Signature:
    """Return the SDK constructor's signature with our keyword-only arguments appended."""
    theirs = inspect.signature(sdk)
    ours = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in {**dict.fromkeys(NAMES), **SETTINGS}.items()
    ]
    return theirs.replace(parameters=[*theirs.parameters.values(), *ours])
