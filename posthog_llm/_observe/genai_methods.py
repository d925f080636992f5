"""From a method of Google's SDK to its requests: several, in one trace, or later than the method.

The method runs on a view of its module, which leads to a view of the API client: it holds what was
given to the method, for every request that the method makes.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from .._context import NOTHING, ambient, around, current
from .._exchange import Arguments
from .._faults import guarded
from .._narrowing import is_dict, is_list
from .event_ids import remember_last
from .sdk import Opened
from .view import own_of, view

T = TypeVar("T")
METHODS = frozenset(
    {"generate_content", "generate_content_stream", "embed_content", "generate_images"}
    | {"edit_image", "upscale_image", "recontext_image", "segment_image", "generate_videos"}
    | {"send_message", "send_message_stream"}
)
"""Methods that run a model, of models and of chats."""
_STREAMS = frozenset({"generate_content_stream", "send_message_stream"})


class Given(NamedTuple):
    """What a method passes to all its requests: the own value of its API client's view."""

    arguments: Arguments | None
    opened: Opened | None
    events: list[str]
    """The events of its requests, in order."""


class Running:
    """One call of a method. `module` is what to run it on, in place of the SDK's."""

    def __init__(self, module: Any, name: str, arguments: Arguments | None, kwargs: Any) -> None:
        self._given: Given | None = None
        # A chat calls its model, and one layer of ours another.
        self.module = module if _is_given(module) else self._view(module, name, arguments, kwargs)

    @guarded
    def _viewed(self, module: Any, name: str, arguments: Arguments | None, kwargs: Any) -> Any:
        trace = _new_trace(module, arguments, kwargs)
        if trace is not None:
            arguments = replace(arguments or NOTHING, trace_id=trace)
        # A stream's request is sent when its first item is read.
        opened = Opened(around(), ambient()) if name in _STREAMS else None
        self._given = Given(arguments, opened, [])
        return _with(module, self._given)

    def _view(self, module: Any, name: str, arguments: Arguments | None, kwargs: Any) -> Any:
        return self._viewed(module, name, arguments, kwargs) or module

    def answered(self, answer: T) -> T:
        """Note which event an answer belongs to: that of the last request."""
        if self._given is not None:
            remember_last(answer, self._given.events)
        return answer


def _is_given(module: Any) -> bool:
    return own_of(module) is not None or own_of(_api_client(module)) is not None


def _api_client(module: Any) -> Any:
    return getattr(getattr(module, "_modules", module), "_api_client", None)


def _with(module: Any, given: Given) -> Any:
    """Return a view of a module, or a chat, whose API client holds what was given."""
    modules = getattr(module, "_modules", None)
    if modules is not None:
        return view(module, _with(modules, given), "_modules")
    if hasattr(module, "sdk_configuration"):  # a resource sends its requests itself
        return view(module, given)
    return view(module, view(module._api_client, given), "_api_client")


def _new_trace(module: Any, arguments: Arguments | None, kwargs: Any) -> str | None:
    """Return the id of a new trace for automatic function calling, unless it is in one."""
    config = kwargs.get("config") or getattr(module, "_config", None)
    if config is None or not _has_functions(config):
        return None
    defaults = getattr(_api_client(module), "_posthog", NOTHING)
    given = arguments is not None and arguments.trace_id
    return None if given or current().trace_id or defaults.trace_id else str(uuid.uuid4())


def _has_functions(config: Any) -> bool:
    """Whether a configuration has tools that the SDK can run: functions, or MCP sessions."""
    tools = config.get("tools") if is_dict(config) else getattr(config, "tools", None)
    found = tools if is_list(tools) else []
    return any(not is_dict(tool) and not hasattr(tool, "model_dump") for tool in found)
