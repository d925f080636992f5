"""A callback handler for LangChain and LangGraph, for programs that pass callbacks themselves.

    from posthog_llm.langchain import CallbackHandler

    agent.invoke(..., config={"callbacks": [CallbackHandler(distinct_id="user-7")]})

`posthog_llm.instrument()` does the same for every run of the process; together, each run is
captured once.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUntypedBaseClass=false
# It is not there where the package is checked.

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

try:
    from langchain_core.callbacks.base import BaseCallbackHandler
except ImportError as error:
    raise ImportError(
        "posthog_llm.langchain needs the langchain-core package: pip install langchain-core"
    ) from error

from ._checks import checked
from ._context import add_step_source
from ._exchange import Arguments
from ._frameworks.langchain import Runs, by_hand, innermost
from ._observe.call_queue import call_queue

__all__ = ["CallbackHandler"]


class CallbackHandler(Runs, BaseCallbackHandler):
    """Captures the runs that it is passed to: agents, chains, tools, retrievers and model calls.

    A model call is captured at the wire where one of our clients, or `instrument`, sees it; else
    from what LangChain reports. Takes the arguments of `posthog.ai.langchain.CallbackHandler`.

    - `client`: where events go; `None`: as set in the environment.
    - `distinct_id`, `trace_id`, `properties`, `groups`: of each run that begins with this handler,
      and of everything inside it; `None`: as in the `context` around the run.
    - `privacy_mode`: whether content is withheld.

    In another process, a pickled handler works as this one if it has no `client`; else it does
    nothing, because a client belongs to its process.

    Raises `TypeError` for an argument of the wrong type.
    """

    def __init__(
        self,
        client: Any = None,
        *,
        distinct_id: str | int | UUID | None = None,
        trace_id: str | int | UUID | None = None,
        properties: Mapping[str, Any] | None = None,
        privacy_mode: bool = False,
        groups: Mapping[str, Any] | None = None,
    ) -> None:
        given = {
            "client": client,
            "distinct_id": distinct_id,
            "trace_id": trace_id,
            "properties": properties,
            "privacy_mode": privacy_mode or None,
            "groups": groups,
        }
        self._given = Arguments(**{name: checked(name, name, v) for name, v in given.items()})
        call_queue.prepare()
        if client is not None:
            call_queue.attach(self._given.client)
        _note_handler()

    def __copy__(self) -> CallbackHandler:
        made = type(self).__new__(type(self))
        made.__dict__.update(vars(self))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> CallbackHandler:
        memo[id(self)] = made = copy.copy(self)
        made.__dict__.update(copy.deepcopy(vars(self), memo))
        return made

    def __getstate__(self) -> dict[str, Any]:
        given = self._given
        is_inert = self._is_inert or given.client is not None
        return {**vars(self), "_given": replace(given, client=None), "_is_inert": is_inert}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        call_queue.prepare()
        _note_handler()


def _note_handler() -> None:
    by_hand[:] = [True]
    add_step_source(innermost)
