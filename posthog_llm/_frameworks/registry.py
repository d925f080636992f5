"""The frameworks that we know; `instrument` takes the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .._observe.around import Installer
from . import claude_agents, langchain, openai_agents, otel


class Framework(NamedTuple):
    module: str
    """The module after whose import the steps can be watched."""
    install: Callable[[Any, Installer], None]


FRAMEWORKS = {
    "langchain": Framework("langchain_core.tracers.context", langchain.install),
    "openai_agents": Framework("agents.tracing.provider", openai_agents.install),
    "claude_agents": Framework("claude_agent_sdk", claude_agents.install),
    "otel": Framework("opentelemetry.sdk.trace", otel.install),
}


def forget() -> None:
    """Forget all open steps, and the runs that may be resumed."""
    for source in (claude_agents, langchain, openai_agents, otel):
        source.steps.forget()
    openai_agents.forget()
