"""Sends one event to a project, and explains in plain words why it did not arrive."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Generator, Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from .._delivery.destinations import Project, is_url
from .._narrowing import mapping

_WRONG_KINDS = {
    "phx_": "a personal API key",
    "pha_": "an OAuth token",
    "phs_": "a feature flags secure key",
    "sk-": "a model provider's key",
}
_REFUSED = frozenset({401, 403})
_LONGEST = 300
"""Most characters shown of an error's text."""
_SUCH_AS = ", such as https://us.i.posthog.com or https://eu.i.posthog.com."


class Unreachable(Exception):
    """An event could not be delivered; the message says why, and what to do."""


def check_project(project: Project) -> None:
    """Check the key and the host before anything is sent. Raises `Unreachable`."""
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
            f"{project.host!r} is no URL of a PostHog instance. Set POSTHOG_HOST to one{_SUCH_AS}"
        )


def send(project: Project, event: str, properties: Mapping[str, Any], timeout: float) -> None:
    """Send one event as the official client does, and check the host's response.

    Raises `Unreachable` if PostHog does not accept the event within `timeout` seconds.
    """
    from posthog.request import (
        batch_post,  # pyright: ignore[reportUnknownVariableType]
        determine_server_host,
    )

    message = {
        "event": event,
        "distinct_id": "posthog-llm-check",
        "properties": dict(properties),
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "uuid": str(uuid.uuid4()),
    }
    host = determine_server_host(project.host)
    # Libraries below log their retries; only this command's output is shown.
    with _quiet():
        try:
            answer = batch_post(project.api_key, host, timeout=timeout, batch=[message])
        except Exception as error:
            raise Unreachable(_reason(error, project)) from error
        _check_answer(answer, project)
        _ask_for_key(project, host, timeout)


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _check_answer(answer: Any, project: Project) -> None:
    """Check that PostHog responded: login pages and websites also respond with 200."""
    if answer.request.method != "POST":  # changed by a redirect with 301, 302 or 303
        raise Unreachable(
            f"{project.host} redirects to {answer.url}, and the event is lost on the way. Set "
            f"POSTHOG_HOST to the URL that accepts events itself{_SUCH_AS}"
        )
    try:
        said = answer.json()
    except ValueError:
        said = None
    if "status" not in mapping(said):
        kind = answer.headers.get("content-type") or "no content type"
        raise Unreachable(
            f"{project.host} answered with HTTP {answer.status_code}, but not as a PostHog does "
            f"({kind} instead of JSON with a status). It may be a website or a login page: set "
            f"POSTHOG_HOST to the URL that accepts events{_SUCH_AS}"
        )


def _ask_for_key(project: Project, host: str, timeout: float) -> None:
    """Check the key: events are accepted with any well-formed key, flags only with a known one."""
    from posthog.request import (
        APIError,
        flags,  # pyright: ignore[reportUnknownVariableType]
    )

    try:
        flags(project.api_key, host, timeout=timeout, distinct_id="posthog-llm-check")
    except APIError as error:
        if error.status in _REFUSED:
            raise Unreachable(_reason(error, project)) from error
    except Exception:  # a host that accepts events but has no flags, such as a proxy
        return


def _reason(error: Exception, project: Project) -> str:
    import requests

    host, status, text = project.host, getattr(error, "status", None), _one_line(error)
    if status in _REFUSED:
        return (
            f"{host} does not know this key (HTTP {status}). Copy the project API key again, and "
            "check that the host is in the same region: us.i.posthog.com or eu.i.posthog.com."
        )
    if status == 429 or (status is not None and status >= 500):
        return f"{host} answered with HTTP {status}: {text}. Try again later."
    if status is not None:
        return f"{host} answered with HTTP {status}: {text}. Is it the URL of a PostHog instance?"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"The proxy in HTTP_PROXY or HTTPS_PROXY does not let {host} through: {text}"
    if isinstance(error, requests.exceptions.SSLError):
        return (
            f"No TLS connection to {host}: {text}. Behind your own proxy, set "
            "REQUESTS_CA_BUNDLE to its certificate."
        )
    if isinstance(error, requests.exceptions.Timeout):
        return f"{host} did not answer in time. Does a firewall block it?"
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"{host} cannot be reached: {text}. Check the name, the network and the firewall."
    return f"The event was not sent: {type(error).__name__}: {text}"


def _one_line(error: Exception) -> str:
    """Return an error's text in one line: it may be a whole page from a proxy."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def app_url(project: Project) -> str:
    """Return the URL of the PostHog app for a project."""
    parts = urlsplit(project.host)
    host = parts.netloc.replace(".i.posthog.com", ".posthog.com")
    return f"{parts.scheme}://{host}"
