"""The identity and the destination of an event, merged from several places."""

from __future__ import annotations

from functools import reduce
from typing import Any

from ._context import NOTHING, merged
from ._exchange import Arguments, Scope
from ._settings import settings


def merge_identity(
    scope: Scope, user: str | None = None, router: Arguments | None = None
) -> Arguments:
    """Merge by precedence: the call, then our context, then posthog's, then the client.

    `user` is the user named in the provider request, if the client uses it. `router` is what the
    request tells a router; everything else takes precedence over it.
    """
    distinct_id = scope.ambient.distinct_id or user
    ambient = Arguments(distinct_id=distinct_id) if distinct_id else NOTHING
    return reduce(merged, (router or NOTHING, scope.client, ambient, scope.context, scope.call))


def is_private(scope: Scope) -> bool:
    """Any yes is a yes. A call's no overrides only its own client's default."""
    if settings().privacy_mode:
        return True
    default = bool(scope.client.privacy_mode) and scope.call.privacy_mode is not False
    return bool(
        scope.call.privacy_mode
        or scope.context.privacy_mode
        or scope.ambient.privacy_mode
        or default
    )


def destination(scope: Scope) -> Any:
    """Return the client named by the call, its context or its client, else the default.

    `None`: as set in the environment, or the `posthog` module.
    """
    found = merge_identity(scope).client
    return scope.default if found is None else found
