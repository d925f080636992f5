"""The `posthog_*` arguments: their names, checks, and path through a call."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from .._checks import checked
from .._exchange import Arguments

PREFIX = "posthog_"
NAMES = {PREFIX + f.name: f.name for f in fields(Arguments)}
_NAMES = frozenset(NAMES)
ATTACHED = "posthog_llm.call"
"""Key under which arguments are attached to the query options of SDK resource methods.

The query options are the one thing that every helper of every SDK version (stream managers,
tool runners, raw accessors) passes on untouched. The arguments are detached where a resource
calls its client: after that point, user code may see the options.
"""


def extract(kwargs: dict[str, Any]) -> Arguments | None:
    """Extract the `posthog_*` arguments from `kwargs`; `None` if there are none.

    Unknown names stay, so that the SDK's own method raises a `TypeError` that names them.
    Raises `TypeError` for a value of the wrong type.
    """
    if _NAMES.isdisjoint(kwargs):
        return None
    found = {name: kwargs.pop(name) for name in list(kwargs) if name in _NAMES}
    return Arguments(**{NAMES[n]: checked(n, NAMES[n], value) for n, value in found.items()})


class _Attached(str):
    """Arguments that look like text to other libraries, which may wrap the SDK's methods."""

    arguments: Arguments


def attach(kwargs: dict[str, Any], arguments: Arguments) -> None:
    """Attach `arguments` to the query options in an SDK method's `kwargs`."""
    attached = _Attached()
    attached.arguments = arguments
    kwargs["extra_query"] = {**(kwargs.get("extra_query") or {}), ATTACHED: attached}


def detach(kwargs: dict[str, Any]) -> Arguments | None:
    """Detach the arguments from what a resource calls its client with.

    What stays is what the SDK would pass without them; the caller's own mappings are not changed.
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
    """Detach the arguments from a request's options, if they are still there.

    They are if the SDK made an unobserved resource of its own on the way.
    """
    params = options.params
    if not params or ATTACHED not in params:
        return None
    options.params = _without(params)
    attached: _Attached = params[ATTACHED]
    return attached.arguments


def _without(params: Any) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != ATTACHED}
