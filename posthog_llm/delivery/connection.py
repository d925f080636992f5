"""One event to a project, and in plain words why it did not arrive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .project import Project, is_url

_WRONG_KINDS = {
    "phx_": "a personal API key",
    "pha_": "an OAuth token",
    "phs_": "a feature flags secure key",
    "sk-": "a model provider's key",
}
_REFUSED = frozenset({401, 403})


class Unreachable(Exception):
    """An event could not be delivered; the text says why, and what to do."""


def check_project(project: Project) -> None:
    """Look at a key and a host before anything is sent. Raises `Unreachable`."""
    if not project.api_key:
        raise Unreachable(
            "POSTHOG_API_KEY is not set. Set it to the project API key (phc_...) that PostHog "
            "shows under Settings > Project > General."
        )
    for start, kind in _WRONG_KINDS.items():
        if project.api_key.startswith(start):
            raise Unreachable(
                f"POSTHOG_API_KEY is {kind} ({start}...). Events need the project API key, which "
                "begins with phc_."
            )
    if not is_url(project.host):
        raise Unreachable(
            f"{project.host!r} is no URL of a PostHog. Set POSTHOG_HOST to one such as "
            "https://us.i.posthog.com or https://eu.i.posthog.com."
        )


def send(project: Project, event: str, properties: Mapping[str, Any], timeout: float) -> None:
    """Send one event through the official client, and ask whether the key is known.

    Raises `Unreachable` when PostHog does not take the event within `timeout` seconds.
    """
    from posthog import Posthog

    client = Posthog(
        project.api_key,
        host=project.host,
        sync_mode=True,
        debug=True,  # exceptions are raised instead of logged
        max_retries=0,
        timeout=timeout,
    )
    try:
        client.capture(event, distinct_id="posthog-llm-check", properties=dict(properties))
    except Exception as error:
        raise Unreachable(_reason(error, project)) from error
    _ask_for_key(project, timeout)


def _ask_for_key(project: Project, timeout: float) -> None:
    """PostHog takes events with any well-formed key; its flags are told to known ones only."""
    from posthog.request import (
        APIError,
        flags,  # pyright: ignore[reportUnknownVariableType]
    )

    try:
        flags(project.api_key, project.host, timeout=timeout, distinct_id="posthog-llm-check")
    except APIError as error:
        if error.status in _REFUSED:
            raise Unreachable(_reason(error, project)) from error
    except Exception:  # a host that takes events and has no flags, such as a proxy
        return


def _reason(error: Exception, project: Project) -> str:
    import requests

    host, status = project.host, getattr(error, "status", None)
    if status in _REFUSED:
        return (
            f"{host} does not know this key (HTTP {status}). Copy the project API key anew, and "
            "check that the host is of the same region: us.i.posthog.com or eu.i.posthog.com."
        )
    if status is not None:
        return f"{host} answered with HTTP {status}: {error}. Is it the URL of a PostHog?"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"The proxy in HTTP_PROXY or HTTPS_PROXY does not let {host} through: {error}"
    if isinstance(error, requests.exceptions.SSLError):
        return (
            f"No TLS connection to {host}: {error}. Behind a proxy of your own, set "
            "REQUESTS_CA_BUNDLE to its certificate."
        )
    if isinstance(error, requests.exceptions.Timeout):
        return f"{host} did not answer in time. Does a firewall block it?"
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"{host} cannot be reached: {error}. Check the name, the network and the firewall."
    return f"The event was not sent: {type(error).__name__}: {error}"


def app_url(project: Project) -> str:
    """Return where a project's events are looked at."""
    parts = urlsplit(project.host)
    host = parts.netloc.replace(".i.posthog.com", ".posthog.com")
    return f"{parts.scheme}://{host}"
