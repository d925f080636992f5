"""The `posthog_*` arguments: their names, their checks, and how they travel with a call."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from .._checks import checked
from .._exchange import Arguments

PREFIX = "posthog_"
NAMES = {PREFIX + f.name: f.name for f in fields(Arguments)}
_NAMES = frozenset(NAMES)
ATTACHED = "posthog_llm.call"
"""Key under which arguments ride in the query options of the SDK's own resource methods.

The query options are the one thing that every helper of every SDK version (stream managers,
tool runners, raw accessors) hands on untouched. They are taken out where a resource calls its
client: from there on a user's own code may look at them.
"""


def extract(kwargs: dict[str, Any]) -> Arguments | None:
    """Take the `posthog_*` arguments out of `kwargs`; `None` when there are none.

    An unknown name is left in, so that the SDK's own method names it in a `TypeError`.
    Raises `TypeError` for a value of the wrong type.
    """
    if _NAMES.isdisjoint(kwargs):
        return None
    found = {name: kwargs.pop(name) for name in list(kwargs) if name in _NAMES}
    return Arguments(**{NAMES[n]: checked(n, NAMES[n], value) for n, value in found.items()})


class _Attached(str):
    """Arguments that are text to whoever looks: other libraries wrap the SDK's methods."""

    arguments: Arguments


def attach(kwargs: dict[str, Any], arguments: Arguments) -> None:
    """Put `arguments` into the query options of an SDK method's `kwargs`."""
    attached = _Attached()
    attached.arguments = arguments
    kwargs["extra_query"] = {**(kwargs.get("extra_query") or {}), ATTACHED: attached}


def detach(kwargs: dict[str, Any]) -> Arguments | None:
    """Take the carried arguments out of what a resource calls its client with.

    What stays is what the SDK makes of the call without them; the caller's own mappings are
    left as they are.
    """
    options: dict[str, Any] = kwargs.get("options") or {}
    params = options.get("params")
    if not params or ATTACHED not in params:
        return None
    kwargs["options"] = rest = dict(options)
    rest["params"] = _without(params)
    if not rest["params"]:
        del rest["params"]
    attached: _Attached = params[ATTACHED]
    return attached.arguments


def detach_from_options(options: Any) -> Arguments | None:
    """Take the carried arguments out of a request's options, should they have come that far.

    That is when the SDK made a resource of its own, which is none of ours, on the way.
    """
    params = options.params
    if not params or ATTACHED not in params:
        return None
    options.params = _without(params)
    attached: _Attached = params[ATTACHED]
    return attached.arguments


def _without(params: Any) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != ATTACHED}
