"""For code that creates its own clients: the same seam, installed in the SDKs' own classes."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import wrapt

from ._checks import checked
from ._context import NOTHING
from ._exchange import Arguments
from ._faults import guarded
from ._frameworks.registry import FRAMEWORKS, Framework
from ._observe import around
from ._observe.around import Installer
from ._observe.call_queue import call_queue
from ._observe.client_arguments import ClientSettings
from ._observe.registry import MODULES, SDKS, watched
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


def instrument(posthog_client: Any = None, **libraries: Unpack[Instrumented]) -> None:
    """Capture the calls of every SDK client, and the steps of frameworks around them.

        posthog_llm.instrument()

    This includes existing clients, and those that frameworks and libraries create; calls of our own
    clients are still captured only once. No library is imported for this: each is instrumented when
    the program imports it. `context`, `trace` and `span` set the identity. Calling it again changes
    the destination. `uninstrument` undoes it.

    - `posthog_client`: where events go, including those of `trace` and `span`; `None`: as set in
      the environment.
    - SDKs and frameworks by name, see `types.Instrumented`: all by default, `langchain=False`
      leaves one out.

    Raises `TypeError` for a `posthog_client` without a `capture` method, and for a name that is
    not known.
    """
    global _defaults
    wanted = _wanted(libraries)
    client = checked("posthog_client", "client", posthog_client)
    _defaults = Arguments(client=client)
    note_instrumented(client)
    call_queue.prepare()
    if client is not None:
        call_queue.attach(client)
    for name, library in wanted.items():
        _watch(name, library)


def _known() -> dict[str, Framework]:
    """Return what can be instrumented, by the name that `instrument` takes."""
    sdks = {name: Framework(MODULES.get(name, name), sdk.install) for name, sdk in SDKS.items()}
    return {**sdks, **FRAMEWORKS}


def _wanted(given: Mapping[str, Any]) -> dict[str, Framework]:
    """Return what to instrument; raises `TypeError` for what is not a choice of it."""
    known = _known()
    for name, value in given.items():
        if name not in known:
            raise TypeError(f"instrument() knows no {name!r}; it knows {', '.join(known)}")
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False")
    return {name: found for name, found in known.items() if given.get(name, True)}


def _watch(name: str, library: Framework) -> None:
    with _changing:
        is_new = name not in _undo
        if is_new:
            _undo[name] = _leaving.pop(name, [])
    if is_new and sys.modules.get(library.module) is not None:
        _put_in_imported(name, library)
    elif is_new and name not in _hooked:
        _hooked.add(name)
        wrapt.when_imported(library.module)(partial(_put_in, name, library))


def uninstrument() -> None:
    """Undo `instrument`: the SDKs are as they were before.

    If another library has wrapped our seam since, the seam stays and does nothing. Calls that have
    begun are observed to their end, and then the seam is removed.
    """
    note_instrumented(None)
    with _changing:
        watched.clear()
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
def _put_in_imported(name: str, library: Framework) -> None:
    # Another thread may be in the middle of its import: this waits until it is done.
    _put_in(name, library, importlib.import_module(library.module))


@guarded
def _put_in(name: str, library: Framework, module: Any) -> None:
    call_queue.prepare()  # some of it depends on which SDK is there
    with _changing:
        steps = _undo.get(name)
        if steps is None or steps:  # `uninstrument` was called meanwhile, or it is done
            return
        installer = Installer(steps, lambda: name not in _undo, ClientSettings, _ATTRIBUTES)
        library.install(module, installer)
        watched.add(name)


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


def _forget() -> None:
    """Start anew in a forked child: another thread of the parent may have held the lock."""
    global _changing
    _changing = threading.RLock()
    around.running.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
