"""LiteLLM and its gateway, with every call to a model told to PostHog.

    import litellm
    from posthog_llm.litellm import PostHogLogger

    litellm.callbacks = [PostHogLogger()]

and in the gateway's `config.yaml`: `litellm_settings: {callbacks: posthog_llm.litellm.logger}`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

try:
    from litellm.integrations.custom_logger import CustomLogger as _CustomLogger
except ImportError as error:
    raise ImportError(
        "posthog_llm.litellm needs the litellm package: pip install 'posthog-llm[litellm]'"
    ) from error

from ..arguments import LoggerArguments
from ..checks import redactor
from ..context import NOTHING
from ..delivery.destinations import environment, is_mock
from ..delivery.worker import worker
from ..exchange import Outcome
from ..faults import guarded
from ..narrowing import is_list
from ..observe.arguments import peel
from ..observe.outer import is_told_above
from ..settings import settings
from . import attempt as attempts
from . import built_in, metadata, urls
from .attempt import Attempt

__all__ = ["PostHogLogger"]

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NOTHING_SENT = "litellm_no_upstream_llm_call"
"""What LiteLLM writes into its record of a request that its gateway refused itself."""


class PostHogLogger(_CustomLogger):
    """A LiteLLM callback that tells each request to a provider as one PostHog event.

    Takes the `posthog_*` arguments of our clients as defaults for every call; see
    `arguments.LoggerArguments`.

    The project is `posthog_client`, else that of `POSTHOG_API_KEY` and `POSTHOG_API_URL` or
    `POSTHOG_HOST` (`https://us.i.posthog.com` by default). With `POSTHOG_MOCK=true` nothing
    is sent.

    Raises `ValueError` where no project is named or the URL is none, `TypeError` for an
    argument of the wrong type.
    """

    def __init__(self, **given: Unpack[LoggerArguments]) -> None:
        kwargs: dict[str, Any] = {**given}
        if unknown := kwargs.keys() - LoggerArguments.__annotations__.keys():
            raise TypeError(f"PostHogLogger() got an unexpected argument {min(unknown)!r}")
        self._defaults = peel(kwargs) or NOTHING
        self._redact = redactor(kwargs.pop("posthog_redact", None))
        super().__init__(**kwargs)
        if self.turn_off_message_logging or not self.message_logging:
            self._defaults = replace(self._defaults, privacy_mode=True)
        project = environment()
        metadata.checked_host(project.host)
        client = self._defaults.client or settings().posthog_client
        if client is None and not project.api_key and not is_mock():
            raise ValueError(
                "PostHogLogger needs a PostHog project: set POSTHOG_API_KEY (and "
                "POSTHOG_API_URL), or pass posthog_client=posthog.Posthog(...)"
            )
        urls.let_through()
        built_in.silence()
        # Now, because a process that ends takes no new threads: its calls may be told then only.
        worker.attach(worker.destinations.find(client))

    # -- while the request runs: on the caller's thread ------------------------------

    @guarded
    def log_pre_api_call(self, model: Any, messages: Any, kwargs: dict[str, Any]) -> None:
        if _NOTHING_SENT in kwargs:
            return  # the gateway refused the request itself
        if not attempts.is_running(kwargs):
            attempts.begin(kwargs, self._attempt(kwargs, messages))

    @guarded
    def _note_result(self, kwargs: Mapping[str, Any], response: Any) -> None:
        if (found := attempts.of(kwargs)) is not None:
            found.answered(response)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        self._listen(kwargs.get("litellm_logging_obj"))

    @guarded
    def _listen(self, call: Any) -> None:
        """Note a stream's whole answer when LiteLLM makes it, before the loop can end."""
        for name in ("dispatch_success_handlers", "async_success_handler"):
            method = getattr(call, name, None)
            if callable(method) and not hasattr(method, "_posthog_llm"):
                setattr(call, name, self._noting(call, method))

    def _noting(self, call: Any, method: Any) -> Any:
        @functools.wraps(method)
        def noting(result: Any = None, *args: Any, **kwargs: Any) -> Any:
            if _is_whole(result):
                self._note_result(call.model_call_details, result)
            return method(result, *args, **kwargs)

        noting._posthog_llm = True  # type: ignore[attr-defined]
        return noting

    async def async_post_call_success_deployment_hook(
        self, request_data: Any, response: Any, call_type: Any
    ) -> None:
        call = request_data.get("litellm_logging_obj")
        self._note_result(getattr(call, "model_call_details", {}), response)

    async def async_post_call_failure_deployment_hook(
        self, request_data: Any, exception: Any = None, call_type: Any = None, **kwargs: Any
    ) -> None:
        # LiteLLM calls back for the first failure of a gateway's request only.
        call = request_data.get("litellm_logging_obj")
        self._end_noted(getattr(call, "model_call_details", {}), exception)

    @guarded
    def _end_noted(self, kwargs: Mapping[str, Any], error: Any) -> None:
        if (found := attempts.of(kwargs)) is not None:
            found.end(Outcome.ERROR, error=error)

    # -- LiteLLM's callbacks: for one call several of them may come, and more than once ------

    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._end(kwargs, Outcome.OK, response_obj, start_time, end_time)

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._end(kwargs, Outcome.OK, response_obj, start_time, end_time)

    def log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._end(kwargs, Outcome.ERROR, response_obj, start_time, end_time)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._end(kwargs, Outcome.ERROR, response_obj, start_time, end_time)

    @guarded
    def _end(
        self, kwargs: dict[str, Any], outcome: Outcome, response: Any, start: Any, end: Any
    ) -> None:
        found = attempts.of(kwargs)
        if found is None:  # nothing was sent: a cache hit, or a failure before
            found = self._unsent(kwargs, start)
        if found is not None:
            found.end(outcome, response, end)

    def _unsent(self, kwargs: dict[str, Any], start: Any) -> Attempt | None:
        if _NOTHING_SENT in kwargs or attempts.is_told(kwargs):
            return None
        found = self._attempt(kwargs, None)
        found.started_at = start.timestamp() if hasattr(start, "timestamp") else found.started_at
        attempts.begin(kwargs, found)
        return found

    def _attempt(self, kwargs: dict[str, Any], messages: Any) -> Attempt:
        noted = list(messages) if is_list(messages) else messages
        return Attempt(
            kwargs,
            self._defaults,
            self._redact,
            input=noted,
            fields=frozenset(metadata.metadata_of(kwargs)),
            number=metadata.number(kwargs),
            quiet=_is_internal() or is_told_above(within_litellm=False),
        )


def _is_internal() -> bool:
    """Whether LiteLLM makes this call for another one, whose usage has it inside."""
    try:
        from litellm._internal_context import is_internal_call
    except ImportError:
        return False
    return bool(is_internal_call.get())


def _is_whole(result: Any) -> bool:
    return result is not None and not type(result).__name__.endswith("Stream")


def __getattr__(name: str) -> Any:
    if name != "logger":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["logger"] = made = PostHogLogger()
    return made
