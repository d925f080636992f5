"""For code that creates its own clients: the same seam, installed in the SDKs' own classes."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import wrapt

from ._checks import checked
from ._context import NOTHING
from ._exchange import Arguments
from ._faults import guarded
from ._observe import around
from ._observe.around import Installer
from ._observe.call_queue import call_queue
from ._observe.client_arguments import ClientSettings
from ._observe.registry import SDKS
from ._settings import note_instrumented

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .types import Instrumented

_undo: dict[str, list[Callable[[], object]]] = {}
"""Steps that remove our seam from an SDK, by its name; every watched SDK has an entry."""
_leaving: dict[str, list[Callable[[], object]]] = {}
"""Steps to run when the calls that have begun are over."""
_hooked: set[str] = set()
_defaults: Arguments = NOTHING
_changing = threading.RLock()
"""Held while our seam is installed or removed; never while a module is imported."""


def instrument(posthog_client: Any = None, **sdks: Unpack[Instrumented]) -> None:
    """Capture the calls of every SDK client, including those that frameworks and libraries create.

        posthog_llm.instrument()

    This includes existing clients; calls of our own clients are still captured only once. The SDKs
    are never imported for this, but instrumented when the program imports them. `context`, `trace`
    and `span` set the identity. Calling it again changes the destination. `uninstrument` undoes it.

    - `posthog_client`: where events go, including those of `trace` and `span`; `None`: as set in
      the environment.
    - `openai`, `anthropic`: which SDKs to instrument; all by default, `False` leaves one out.

    Raises `TypeError` for a `posthog_client` without a `capture` method, and for the name of an
    SDK that is not known.
    """
    global _defaults
    wanted = _wanted(sdks)
    client = checked("posthog_client", "client", posthog_client)
    _defaults = Arguments(client=client)
    note_instrumented(client)
    call_queue.prepare()
    if client is not None:
        call_queue.attach(client)
    for name in wanted:
        _watch(name)


def _wanted(given: Mapping[str, Any]) -> list[str]:
    """Return the SDKs to instrument; raises `TypeError` for what is not a choice of one."""
    for name, value in given.items():
        if name not in SDKS:
            raise TypeError(f"instrument() knows no {name!r}; it knows {', '.join(SDKS)}")
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False")
    return [name for name in SDKS if given.get(name, True)]


def _watch(name: str) -> None:
    with _changing:
        is_new = name not in _undo
        if is_new:
            _undo[name] = _leaving.pop(name, [])
    if is_new and sys.modules.get(name) is not None:
        _put_in_imported(name)
    elif is_new and name not in _hooked:
        _hooked.add(name)
        wrapt.when_imported(name)(_put_in)


def uninstrument() -> None:
    """Undo `instrument`: the SDKs are as they were before.

    If another library has wrapped our seam since, the seam stays and does nothing. Calls that have
    begun are observed to their end, and then the seam is removed.
    """
    note_instrumented(None)
    with _changing:
        _leaving.update(_undo)
        _undo.clear()  # from here on, new calls bypass our seam, in other threads, too
        around.running.then = _take_out
    _take_out()


@guarded
def _take_out() -> None:
    with _changing:
        if around.running or not _leaving:
            return
        around.running.then = None
        undone = [step for steps in _leaving.values() for step in reversed(steps)]
        _leaving.clear()
        _run_all(undone)


def _run_all(steps: list[Callable[[], object]]) -> None:
    """Run each step, even if a signal handler raises during one of them."""
    raised: BaseException | None = None
    for step in steps:
        try:
            step()
        except BaseException as error:  # noqa: PERF203 - each step is to be run
            raised = error
    if raised is not None:
        raise raised


@guarded
def _put_in_imported(name: str) -> None:
    # Another thread may be in the middle of its import: this waits until it is done.
    _put_in(importlib.import_module(name))


@guarded
def _put_in(module: Any) -> None:
    call_queue.prepare()  # some of it depends on which SDK is there
    name = module.__name__
    with _changing:
        steps = _undo.get(name)
        if steps is None or steps:  # `uninstrument` was called meanwhile, or it is done
            return
        installer = Installer(steps, lambda: name not in _undo, ClientSettings, _ATTRIBUTES)
        SDKS[name].install(module, installer)


class _Defaults:
    """The defaults of clients that are not ours: the latest arguments of `instrument`."""

    def __get__(self, client: Any, owner: Any) -> Arguments:
        return _defaults


_ATTRIBUTES = {
    name: _Defaults() if name == "_posthog" else value
    for name, value in vars(ClientSettings).items()
    if name.startswith("_posthog")
}
"""What the seam reads of a client."""
