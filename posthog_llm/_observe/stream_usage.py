"""Requesting a stream's token usage when the caller did not, invisibly to the caller.

OpenAI's chat and completion streams report usage only with
`stream_options.include_usage` (https://platform.openai.com/docs/api-reference/chat/create).
The option is added to a copy of the body; its effects are removed from the response again.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from .._encoding import Transcoder, transcoder
from .._narrowing import is_mapping
from .usage_chunk import UsageFilter

_refused: dict[tuple[str, str, str | None], float] = {}
"""Targets that work only without the option (base URL, path and model), and since when."""
_MOST_KNOWN = 1000
_FORGOTTEN_AFTER = 3600.0
"""Seconds after which a refusal is forgotten: servers are upgraded."""
_MARKS = ("stream_options", "include_usage")
_REFUSALS = (400, 422)
_VAGUE = frozenset(
    {"invalidrequesterror", "invalidrequest", "badrequest", "badrequesterror", "invalidargument"}
    | {"invalidparameter", "unknownparameter", "unsupportedparameter", "parametererror"}
    | {"unknownfield", "unsupportedfield", "unsupportedvalue", "extraforbidden", "invalidbody"}
    | {"validationerror", "validationexception", "requestvalidationerror"}
    | {"unprocessableentity", "body", "none", "null"}
)
"""Codes that name no cause: they say no more than the status, that the request was bad.

Lowercase letters only, because each API formats them differently."""


def forget() -> None:
    """Forget all refusals."""
    _refused.clear()


class Injector:
    """Adds the option to one call's requests, unless it is known to be refused."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._key: tuple[str, str, str | None] = (base_url, "", None)
        self._left_out = False
        self.added = False

    def add(self, options: Any) -> None:
        """Add the option to a copy of the body in `options`, if the caller did not set it."""
        body, extra = options.json_data, options.extra_json
        self.added = False
        if self._left_out or not is_mapping(body):
            return
        sent = {**body, **extra} if is_mapping(extra) else body
        request = sent.get("stream_options")
        if sent.get("stream") is not True or not (request is None or is_mapping(request)):
            return
        if request and "include_usage" in request:
            return
        model = sent.get("model")
        self._key = (self._base_url, options.url, model if isinstance(model, str) else None)
        if _is_known_to_refuse(self._key):
            return
        wanted = {**(request or {}), "include_usage": True}
        if is_mapping(extra) and "stream_options" in extra:
            options.extra_json = {**extra, "stream_options": wanted}
        else:
            options.json_data = {**body, "stream_options": wanted}
        self.added = True

    def leave_out(self, error: Any, options: Any) -> bool:
        """Whether `error` may be about the added option: then the call continues without it."""
        if not self.added or not _may_be_the_option(error):
            return False
        self._left_out, self.added = True, False
        if getattr(error, "status_code", 0) >= 500 and hasattr(options, "max_retries"):
            options.max_retries = 0  # the SDK has already retried such a response
        return True

    def accepted(self) -> None:
        """Note that the request succeeded; if only without the option, remember the refusal."""
        if self._left_out:
            if len(_refused) >= _MOST_KNOWN:
                _refused.clear()
            _refused[self._key] = monotonic()

    def usage_filter(self, response: Any, encoding: str) -> UsageFilter | Transcoder | None:
        """Return a filter that removes the option's effects; `None` if it was not added.

        The content type does not matter: the SDK reads every response to such a request as
        server-sent events.
        """
        if not self.added:
            return None
        return transcoder(response, encoding, UsageFilter()) if encoding else UsageFilter()

    def hide_in_memory(self, response: Any) -> None:
        """Remove the option's effects from a response that a caller's hook has already read."""
        held: Any = response.__dict__
        content = held.get("_content")
        if not self.added or not isinstance(content, bytes):
            return
        usage_filter = UsageFilter()
        shown = usage_filter.feed(content) + usage_filter.flush()
        if shown != content:
            held["_content"] = shown
            held.pop("_text", None)


def _is_known_to_refuse(key: tuple[str, str, str | None]) -> bool:
    since = _refused.get(key)
    return since is not None and monotonic() - since < _FORGOTTEN_AFTER


def _may_be_the_option(error: Any) -> bool:
    """Whether a refusal names the option, or no cause."""
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or not 400 <= status < 600:
        return False
    text = f"{error} {getattr(getattr(error, 'response', None), 'text', '')}"
    if any(mark in text for mark in _MARKS):
        return True
    return status in _REFUSALS and not any(
        _names_a_cause(getattr(error, name, None)) for name in ("param", "code")
    )


def _names_a_cause(value: Any) -> bool:
    """Whether a `param` or `code` says more than that the request was bad."""
    letters = "".join(filter(str.isalpha, str(value or "").lower()))
    return bool(letters) and letters not in _VAGUE
