"""The open runs of LangChain by their id. A caller may give one id to several runs at once."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from contextvars import ContextVar
from typing import Any

from .._narrowing import is_list
from .step import AnyStep, OpenSteps

_MANAGER = "langchain_core.callbacks.manager"
_DEPTH = 20
"""Frames between a callback and LangChain's manager, at most."""
_MOST_SHARED = 10_000
"""Most ids that are remembered as those of several runs."""
_inside: ContextVar[Mapping[Hashable, Hashable] | None] = ContextVar(
    "posthog_llm_langchain_shared", default=None
)
"""Keys of the runs around the caller which began while another run had their id, by that id."""
_ended: ContextVar[Any] = ContextVar("posthog_llm_langchain_ended", default=None)
"""The handlers of the latest such run that ended: each of them is called back at its end."""


class OpenRuns(OpenSteps):
    """Open runs. The first run of an id has it as its key, others have a key of their own.

    Two runs of one id differ in the manager that calls back. LangChain makes one for the start of
    a run and one for the rest, which share the list of handlers: it is found on the stack, but only
    for ids of several runs. Which of them a run inside is in, its context tells.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shared: OrderedDict[Hashable, None] = OrderedDict()

    def begun(self, run: Mapping[str, Any]) -> AnyStep | None:
        """Return the run if another handler of ours has begun it.

        The handlers of a run are called with the same tags: not only equal ones.
        """
        run_id, tags = run["run_id"], run.get("tags")
        step = self.get(run_id)
        if step is not None and step.caller[0] is tags:
            return step
        step = self.get(_key(run_id)) if run_id in self._shared else None
        return step if step is not None and step.caller[0] is tags else None

    def begin(self, run: Mapping[str, Any], step: AnyStep) -> None:
        key: Hashable = run["run_id"]
        step.caller = run.get("tags"), None
        if self.get(key) is not None:
            step.caller = run.get("tags"), handlers()  # held: the key is its address
            key = self._share(key)
        self.add(key, step)

    def _share(self, run_id: Hashable) -> Hashable:
        """Note that several runs have an id; return the key of the one that begins."""
        self._shared[run_id] = None
        if len(self._shared) > _MOST_SHARED:
            self._shared.popitem(last=False)
        key = _key(run_id)
        if (lost := self.take(key)) is not None:  # no manager: the program calls our handler itself
            lost.abandon()
        known = {
            one: key for one, key in (_inside.get() or {}).items() if self.get(key) is not None
        }
        _inside.set({**known, run_id: key})
        return key

    def around(self, run_id: Any) -> AnyStep | None:
        """Return the run of an id that is around the caller."""
        if run_id in self._shared:
            inner = self.get((_inside.get() or {}).get(run_id))
            if inner is not None:
                return inner
        return self.get(run_id)

    def called_back(self, run_id: Any) -> AnyStep | None:
        """Return the run of an id whose callback is running."""
        own = self.get(_key(run_id)) if run_id in self._shared else None
        return self.get(run_id) if own is None else own

    def take_called_back(self, run_id: Any) -> AnyStep | None:
        """Remove and return the run of an id whose callback is running."""
        if run_id not in self._shared:
            return self.take(run_id)
        own = self.take(_key(run_id))
        if own is not None:
            _ended.set(own.caller[1])
            return own
        found = handlers()
        return None if found is not None and found is _ended.get() else self.take(run_id)

    def forget(self) -> None:
        super().forget()
        self._shared.clear()


def _key(run_id: Hashable) -> Hashable:
    return run_id, id(handlers())


def handlers() -> Any:
    """Return the list of handlers of the manager that calls back; `None` if there is none."""
    frame: Any = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - as in the standard library
    for _ in range(_DEPTH):
        if frame is None:
            break
        if frame.f_globals.get("__name__") == _MANAGER:
            found = getattr(frame.f_locals.get("self"), "handlers", None)
            if is_list(found):
                return found
        frame = frame.f_back
    return None
