"""`claude_agent_sdk`, with each turn of an agent captured in PostHog.

    from posthog_llm.claude_agents import ClaudeSDKClient, query

    async for message in query(prompt="Hello", posthog_distinct_id="user-7"):
        ...

Every other public name is the SDK's own object, so this module is a drop-in replacement for
`import claude_agent_sdk`. `posthog_llm.instrument()` does the same for the whole process;
together, each turn is captured once.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUntypedBaseClass=false
# pyright: reportUnknownMemberType=false
# It is not there where the package is checked; its types are those of the stub.

from __future__ import annotations

try:
    import claude_agent_sdk as _sdk
except ImportError as error:
    raise ImportError(
        "posthog_llm.claude_agents needs the Claude Agent SDK: "
        "pip install 'posthog-llm[claude-agents]'"
    ) from error

from ._frameworks.claude_agents import ObservedClient as _ObservedClient
from ._frameworks.claude_agents import hold as _hold
from ._frameworks.claude_agents import watched_method as _watched_method
from ._frameworks.claude_agents import watched_query as _watched_query
from ._observe.drop_in import drop_in_for as _drop_in_for


class ClaudeSDKClient(_ObservedClient, _sdk.ClaudeSDKClient):
    connect = _watched_method(_sdk.ClaudeSDKClient.connect)
    query = _watched_method(_sdk.ClaudeSDKClient.query)


query = _watched_query(_sdk.query)

__all__ = _sdk.__all__  # pyright: ignore
_hold(__name__)
_drop_in_for(_sdk, __name__)
