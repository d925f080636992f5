"""The Claude Agent SDK: seen at its transport, where each message to and from the CLI passes.

Not at the client's messages: these are read when the application has time, or never, and say
nothing of the CLI's requests to hooks and tools in this process. No option changes for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import wrapt

from .._chain import Chain, Held, Link, here, only
from .._checks import checked
from .._context import NOTHING, chain, merged
from .._exchange import Arguments
from .._faults import guarded, warn_once
from .._imports import imported
from .._narrowing import mapping
from .._observe.around import Installer
from .._observe.call_arguments import PREFIX
from .._observe.call_queue import call_queue
from .._roots import waiting
from .._running import inside
from ..types import TurnArguments
from .claude_turns import Conversation, steps

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy  # older versions cannot be subscripted

__all__ = ["install", "steps"]
_TRANSPORT = "claude_agent_sdk._internal.transport.subprocess_cli"
_THEIRS = "posthog.ai.claude_agent_sdk"
_NOBODY = Link(None, only, NOTHING, None)
_asked: Chain = ContextVar("posthog_llm_claude_agents", default=_NOBODY)
"""Our arguments, while one of our functions runs, and in the tasks that it starts."""
_everyone: list[bool] = []
"""Not empty while `instrument` watches all conversations of the process."""
_users: list[object] = []
"""Who needs the wrappers in the SDK: our public module for good, and `instrument`."""
_undo: list[Any] = []
_conversations: WeakKeyDictionary[Any, Conversation | None] = WeakKeyDictionary()
"""By their transport; `None`: another library captures it."""
_SERVICES = {"CLAUDE_CODE_USE_BEDROCK": "bedrock", "CLAUDE_CODE_USE_VERTEX": "vertex"}
_OFF = ("", "0", "false", "no", "off")
_FRAMES = 30
"""Most callers between the transport and the application's function that are looked at."""


def _given() -> Arguments | None:
    """Return our arguments around the caller; `None` if nobody wants to know."""
    link = here(_asked)
    return link.values if link is not _NOBODY or _everyone else None


def _where() -> Chain:
    return _asked


# -- the transport ----------------------------------------------------------------------


def _of(transport: Any) -> Conversation | None:
    given = _given()
    if transport not in _conversations and given is not None:
        _conversations[transport] = (
            None if _reports_to_posthog() else Conversation(given, _provider(transport))
        )
    return _conversations.get(transport)


def _provider(transport: Any) -> str:
    """Return who serves the model: the CLI reads it from its environment."""
    options = None if type(transport) is Watched else getattr(transport, "_options", None)
    own = mapping(getattr(options, "env", None))
    for name, provider in _SERVICES.items():
        if str(own.get(name, os.environ.get(name, ""))).lower() not in _OFF:
            return provider
    return "anthropic"


def _reports_to_posthog() -> bool:
    """Whether PostHog's own wrapper, which then captures the turns, writes to the CLI."""
    if imported(_THEIRS) is None:
        return False
    frame: Any = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - as in the standard library
    for _ in range(_FRAMES):
        if frame is None:
            break
        if str(frame.f_globals.get("__name__")).startswith(_THEIRS):
            warn_once(f"{_THEIRS} captures turns of the Claude Agent SDK; remove it")
            return True
        frame = frame.f_back
    return False


@guarded
def _wrote(transport: Any, data: Any) -> None:
    conversation = _of(transport)
    if conversation is not None:
        conversation.wrote(data, _given() or NOTHING)


def _write(send: Any, transport: Any, args: Any, kwargs: Any) -> Any:
    _wrote(transport, args[0] if args else kwargs.get("data"))
    return send(*args, **kwargs)


def _read_messages(send: Any, transport: Any, args: Any, kwargs: Any) -> Any:
    conversation = guarded(_of)(transport)
    found = send(*args, **kwargs)
    return found if conversation is None else _noting(found, conversation)


async def _noting(messages: Any, conversation: Conversation) -> AsyncIterator[Any]:
    """Yield the messages; what the SDK starts for a request of the CLI is inside of its step."""
    outer, asked = chain.get(), _asked.get()
    try:
        async for message in messages:
            is_wanted = conversation.is_open or _given() is not None  # else: `uninstrument`
            around = conversation.read(message) if is_wanted else None
            if around is None:
                yield message
                continue
            chain.set(around)
            _asked.set(_NOBODY)  # our arguments are not those of another agent in there
            try:
                yield message
            finally:
                chain.set(outer)
                _asked.set(asked)
    except BaseException as error:
        conversation.over(error)
        raise
    conversation.over(None)


class Watched(_Proxy):
    """A transport of the application's own, which stays as it is."""

    def read_messages(self) -> Any:
        return _read_messages(self.__wrapped__.read_messages, self, (), {})

    def write(self, data: Any) -> Any:
        return _write(self.__wrapped__.write, self, (data,), {})

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other or bool(self.__wrapped__ == other)


def _watched(transport: Any) -> Any:
    """Return what to use for a transport: a proxy, unless its class is watched."""
    module = imported(_TRANSPORT)
    if transport is None or module is None or type(transport) is Watched:
        return transport
    is_known = isinstance(transport, module.SubprocessCLITransport)
    return transport if is_known else Watched(transport)


def _with_transport(position: int, send: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    if _given() is not None:
        if len(args) > position:
            args = (*args[:position], _watched(args[position]), *args[position + 1 :])
        elif "transport" in kwargs:
            kwargs = {**kwargs, "transport": _watched(kwargs["transport"])}
    return send(*args, **kwargs)


# -- our functions ------------------------------------------------------------------------

_OURS = {name: name.removeprefix(PREFIX) for name in TurnArguments.__annotations__}


def taken(kwargs: dict[str, Any]) -> Arguments:
    """Take our arguments out of keyword arguments; the SDK raises for unknown ones.

    Raises `TypeError` for a value of the wrong type.
    """
    found = {name: kwargs.pop(name) for name in list(kwargs) if name in _OURS}
    given = Arguments(**{_OURS[n]: checked(n, _OURS[n], value) for n, value in found.items()})
    if given.privacy_mode:
        waiting.for_privacy = True
    if given.client is not None:
        call_queue.attach(given.client)
    return given if found else NOTHING


def _asking(given: Arguments) -> Held:
    call_queue.prepare()
    return Held(_asked, Link(None, only, given, None))


def _ask(args: Any, kwargs: dict[str, Any]) -> Held:
    return _asking(taken(kwargs))


def _ask_client(args: Any, kwargs: dict[str, Any]) -> Held:
    return _asking(merged(args[0]._posthog, taken(kwargs)))


def watched_query(query: Any) -> Any:
    """Return the SDK's `query` with our arguments."""
    return inside(_ask, query, _where)


def watched_method(method: Any) -> Any:
    """Return a method of the SDK's client with our arguments."""
    return inside(_ask_client, method, _where)


class ObservedClient:
    """Mixin for the SDK's client: our arguments are defaults for its turns."""

    _posthog: Arguments = NOTHING

    def __init__(self, options: Any = None, transport: Any = None, **posthog: Any) -> None:
        given = taken(posthog)
        sdk: Any = super()
        sdk.__init__(options, _watched(transport), **posthog)
        self._posthog = given


# -- installation -----------------------------------------------------------------------

_SEAM = (
    (_TRANSPORT, "SubprocessCLITransport", "read_messages", _read_messages),
    (_TRANSPORT, "SubprocessCLITransport", "write", _write),
    (
        *("claude_agent_sdk._internal.client", "InternalClient", "process_query"),
        partial(_with_transport, 2),
    ),
    ("claude_agent_sdk.client", "ClaudeSDKClient", "__init__", partial(_with_transport, 1)),
)
"""What is wrapped: the module, the class, the method, and our function around it."""


def hold(user: object) -> None:
    """Put the wrappers into the SDK's classes, where they do nothing unless somebody asks."""
    _users.append(user)
    if _undo:
        return
    put = Installer(_undo, lambda: False, Watched, {})
    for module, cls, name, observe in _SEAM:
        found = getattr(imported(module), cls, None)
        if found is not None and name in vars(found):
            put.wrap(found, name, observe)


def _release(user: object) -> None:
    if user in _users:
        _users.remove(user)
    if not _users:
        undo, _undo[:] = list(_undo), []
        for step in reversed(undo):
            step()


def install(module: Any, installer: Installer) -> None:
    """Watch all conversations of the process; `module` is `claude_agent_sdk`."""
    hold(installer)
    installer.on_undo(partial(_release, installer))
    _everyone.append(True)
    installer.on_undo(_everyone.clear)
