"""A callback handler for LangChain and LangGraph, for programs that pass callbacks themselves.

    from posthog_llm.langchain import CallbackHandler

    agent.invoke(..., config={"callbacks": [CallbackHandler(distinct_id="user-7")]})

`posthog_llm.instrument()` does the same for every run of the process; together, each run is
captured once.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUntypedBaseClass=false
# It is not there where the package is checked.

from __future__ import annotations

from collections.abc import Mapping
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
        by_hand.append(True)
        add_step_source(innermost)
