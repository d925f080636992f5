"""LiteLLM and its gateway, with every model call captured in PostHog.

    import litellm
    from posthog_llm.litellm import PostHogLogger

    litellm.callbacks = [PostHogLogger()]

In the gateway's `config.yaml`: `litellm_settings: {callbacks: posthog_llm.litellm.logger}`.
"""

# LiteLLM pins another openai version than the one we check against, so it is not installed.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

try:
    from litellm.integrations.custom_logger import CustomLogger as _CustomLogger
except ImportError as error:
    raise ImportError(
        "posthog_llm.litellm needs the litellm package: pip install 'posthog-llm[litellm]'"
    ) from error

from ._checks import redactor
from ._context import NOTHING
from ._delivery.destinations import environment, is_mock
from ._delivery.worker import worker
from ._exchange import Outcome
from ._faults import guarded
from ._litellm import attempt as attempts
from ._litellm import built_in, ends, gateway, metadata, remembered, retries, streams, urls
from ._litellm.attempt import Attempt
from ._narrowing import first_given, is_list
from ._observe.call_arguments import extract
from ._observe.dedup import is_captured_above
from ._roots import note_redactor
from ._settings import settings
from .types import LoggerArguments

__all__ = ["PostHogLogger"]

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PostHogLogger(_CustomLogger):
    """A LiteLLM callback that captures each request to a provider as one PostHog event.

    Takes the `posthog_*` arguments of our clients as defaults for every call; see
    `types.LoggerArguments`. `groups` and `properties` send facts about the gateway's teams and
    keys:

        PostHogLogger(groups={"team": "team_id"}, properties=["key_alias"])

    Valid names are `key_alias`, `team_id`, `team_alias`, `org_id`, `org_alias`, `project_id`,
    `project_alias`, `user_id`, `user_email` and `end_user_id`. None of them is sent unless
    configured, and the key never is.

    The project is `posthog_client`, else the one set by `POSTHOG_API_KEY` and `POSTHOG_API_URL` or
    `POSTHOG_HOST` (`https://us.i.posthog.com` by default). With `POSTHOG_MOCK=true` nothing is
    sent.

    Raises `ValueError` if no project is configured, the URL is invalid, or the gateway does not
    know a name, and `TypeError` for an argument of the wrong type.
    """

    def __init__(self, **given: Unpack[LoggerArguments]) -> None:
        kwargs: dict[str, Any] = {**given}
        if unknown := kwargs.keys() - LoggerArguments.__annotations__.keys():
            raise TypeError(f"PostHogLogger() got an unexpected argument {min(unknown)!r}")
        self._defaults = extract(kwargs) or NOTHING
        self._redact = redactor(kwargs.pop("posthog_redact", None))
        note_redactor(self._redact)
        of_keys = kwargs.pop("groups", {}), kwargs.pop("properties", ())
        self._of_keys = metadata.OfKeys.validated(*of_keys)
        super().__init__(**kwargs)
        if self.turn_off_message_logging or not self.message_logging:
            self._defaults = replace(self._defaults, privacy_mode=True)
        project = environment()
        metadata.checked_host(project.host)
        client = first_given(self._defaults.client, settings().posthog_client)
        if client is None and not project.api_key and not is_mock():
            raise ValueError(
                "PostHogLogger needs a PostHog project: set POSTHOG_API_KEY (and "
                "POSTHOG_API_URL), or pass posthog_client=posthog.Posthog(...)"
            )
        urls.let_through()
        built_in.silence()
        ends.watch()
        retries.watch()
        streams.watch()
        gateway.watch()
        # Now, because an exiting process cannot start threads, and may capture its calls only then.
        worker.prepare()
        worker.attach(worker.destinations.find(client))

    # -- while the request runs: on the caller's thread ------------------------------

    @guarded
    def log_pre_api_call(self, model: Any, messages: Any, kwargs: dict[str, Any]) -> None:
        if attempts.is_refused(kwargs) and not kwargs.get("additional_args"):
            return  # the gateway announces what it rejected itself; nothing is sent
        if not attempts.is_running(kwargs):
            attempts.begin(kwargs, self._attempt(kwargs, messages))

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        gateway.watch()  # its module may be imported after ours

    async def async_post_call_success_deployment_hook(
        self, request_data: Any, response: Any, call_type: Any
    ) -> None:
        attempts.note_response(request_data.get("litellm_logging_obj"), response)

    async def async_post_call_failure_deployment_hook(
        self, request_data: Any, exception: Any = None, call_type: Any = None, **kwargs: Any
    ) -> None:
        # LiteLLM calls back only for the first failure of a gateway request.
        attempts.failed(request_data.get("litellm_logging_obj"), exception)

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
        if found is None:  # nothing was sent: a cache hit, or an earlier failure
            found = self.posthog_llm_unsent(kwargs, start)
        if found is None:
            return
        if outcome is Outcome.ERROR and found.response is not None:
            found.abandon()  # the model has responded; something later failed, such as a guardrail
        elif outcome is not Outcome.ERROR or not attempts.is_refused(kwargs):
            found.end(outcome, response, end)

    def posthog_llm_unsent(self, kwargs: dict[str, Any], start: Any) -> Attempt | None:
        """Begin an attempt for a call that sent nothing; `None` if there is nothing to capture."""
        if attempts.is_refused(kwargs) or remembered.has(kwargs):
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
            self._of_keys,
            input=noted,
            fields=frozenset(metadata.metadata_of(kwargs)),
            number=metadata.number(kwargs),
            is_captured_above=_is_internal() or is_captured_above(within_litellm=False),
        )


def _is_internal() -> bool:
    """Whether LiteLLM makes this call for another one, whose usage includes it."""
    try:
        from litellm._internal_context import is_internal_call
    except ImportError:
        return False
    return bool(is_internal_call.get())


def __getattr__(name: str) -> Any:
    if name != "logger":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["logger"] = made = PostHogLogger()
    return made
