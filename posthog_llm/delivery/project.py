"""A PostHog project as a destination: a key and a host, without threads of its own."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .official import load, sync_client

DEFAULT_HOST = "https://us.i.posthog.com"
_MOST = 1024
"""Clients that are kept ready; the one that was not used for longest is let go of first."""


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
        answer: str | None = _client(self).capture(event, **arguments)
        return answer

    def capture_ai(self, event: str, **arguments: Any) -> str | None:
        """Send one event over the AI lane, which takes larger ones, where there is one."""
        client = _client(self)
        answer: str | None = getattr(client, "capture_ai", client.capture)(event, **arguments)
        return answer


@functools.lru_cache(maxsize=_MOST)
def _client(project: Project) -> Any:
    load()
    return sync_client(project.api_key, project.host)
