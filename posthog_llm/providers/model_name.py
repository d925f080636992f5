"""Which of two model names PostHog prices truly: the requested or the served one."""

from __future__ import annotations

import re

_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4})$")
_ALIASING = frozenset({"azure"})
"""Providers where a request names a deployment of the customer's, not a model."""
_PROFILE = re.compile(r"application-inference-profile|^openrouter/auto$|^auto$")


def priced_name(
    requested: str | None, served: str | None, provider: str, *, fast: bool = False
) -> str | None:
    """Return the name to send as the event's model.

    `fast`: PostHog's book has Anthropic's fast mode as a model of its own.

    The requested name is in PostHog's book where the served one is a dated snapshot of it;
    the served name is, where the request named a deployment, a profile or nothing at all.
    """
    if not requested or not served:
        name = requested or served
    elif _undated(served) == _undated(requested):
        name = requested
    elif provider in _ALIASING or _PROFILE.search(requested):
        name = served
    else:
        name = requested
    if name and fast:
        return f"{_undated(name).removesuffix('-fast')}-fast"
    # PostHog matches by containment: a dated gpt-5 contains `gpt-5-2`, which is gpt-5.2.
    return _undated(name) if name and re.search(r"(?:^|/)gpt-5(?![.\d])", name) else name


def _undated(name: str) -> str:
    return _DATE.sub("", name)
