"""Who asks, and in which trace: values that hold for every call inside a block."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from dataclasses import fields, replace
from typing import Any

from .checks import checked
from .exchange import Ambient, Arguments

NOTHING = Arguments()
_current: ContextVar[Arguments] = ContextVar("posthog_llm_context", default=NOTHING)
_NO_AMBIENT = Ambient()
_NAMES = frozenset(field.name for field in fields(Arguments))


def current() -> Arguments:
    """Return the values of the innermost `context` around the caller."""
    return _current.get()


def merged(outer: Arguments, inner: Arguments) -> Arguments:
    """Return `outer` with what `inner` gives; mappings are merged key by key."""
    if inner is NOTHING or outer is NOTHING:
        return outer if inner is NOTHING else inner
    given = {
        f.name: value for f in fields(Arguments) if (value := getattr(inner, f.name)) is not None
    }
    for name in ("properties", "groups"):
        if name in given and getattr(outer, name):
            given[name] = {**getattr(outer, name), **given[name]}
    return replace(outer, **given)


class context:
    """Give values to every call inside the block; the call's own arguments win.

    Takes the per-call names without their prefix: `distinct_id`, `trace_id`, `session_id`,
    `parent_id`, `properties`, `groups`, `privacy_mode`, `provider_override`. Works with
    `with` and `async with`; nested blocks merge. A stream keeps the values that held when
    it was opened, also after the block.

        with posthog_llm.context(distinct_id="user-7", session_id="chat-1"):
            client.chat.completions.create(...)

    Raises `TypeError` for an unknown name, or a value of the wrong type.
    """

    def __init__(self, **values: Any) -> None:
        if unknown := values.keys() - _NAMES:
            raise TypeError(f"context() got an unexpected argument {min(unknown)!r}")
        self._values = Arguments(**{k: checked(k, k, v) for k, v in values.items()})
        self._outer: list[Arguments] = []

    def __enter__(self) -> None:
        outer = _current.get()
        self._outer.append(outer)
        _current.set(merged(outer, self._values))

    def __exit__(self, *exc_info: object) -> None:
        # The old value is set again rather than a token reset: a token fails when a
        # generator is finished from another context.
        _current.set(self._outer.pop())

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.__exit__()


def ambient() -> Ambient:
    """Read the `posthog` package's own context, without importing that package."""
    posthog = sys.modules.get("posthog")
    contexts = sys.modules.get("posthog.contexts")
    if posthog is None or contexts is None:
        return _NO_AMBIENT
    distinct_id = contexts.get_context_distinct_id()
    session_id = contexts.get_context_session_id()
    tags = contexts.get_tags()
    private = bool(getattr(posthog, "privacy_mode", False))
    if not (distinct_id or session_id or tags or private):
        return _NO_AMBIENT
    return Ambient(distinct_id, session_id, tags, private)
