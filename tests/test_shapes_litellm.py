"""Events of LiteLLM's own logger beside ours: what an insight sees differ is in the documents."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest

import posthog_llm
from posthog_llm.testing import PostHogReceiver, ScriptedProvider

from .driving import use_callbacks

litellm = pytest.importorskip("litellm", reason="LiteLLM is in the gateway session")

from litellm.litellm_core_utils import litellm_logging  # noqa: E402
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER  # noqa: E402

from posthog_llm.litellm import PostHogLogger  # noqa: E402

CHAT: Any = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
TOOL: Any = {"name": "f", "parameters": {"type": "object", "properties": {}}}
NAMED: Any = {"user_id": "user-7", "plan": "team", "session_id": "chat-1"}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "named": ("acompletion", {**CHAT, "metadata": NAMED}),
    "anonymous": ("acompletion", CHAT),
    "streamed": ("acompletion", {**CHAT, "stream": True}),
    "tools": ("acompletion", {**CHAT, "tools": [{"type": "function", "function": TOOL}]}),
    "refused": ("acompletion", {**CHAT, "model": "openai/no-such-model"}),
    "embedding": ("aembedding", {"model": "openai/text-embedding-3-small", "input": ["hi"]}),
}
DIFFERENT = {
    "event": {"embedding"},
    "$ai_output_choices": set(CALLS),
    "$ai_trace_id": set(CALLS),
    "$ai_span_id": set(CALLS),
    "$ai_input_tokens": {"streamed", "refused"},
    "$ai_output_tokens": {"streamed", "refused", "embedding"},
    "$ai_total_cost_usd": {"streamed", "refused"},
    "session_id": {"named"},
    "llm_api_timing_windows": {"named"},
}
"""Properties that LiteLLM's logger sends, and the calls in which ours has another, or none."""
NEVER_ALIKE = {"$ai_latency"}


def properties(callback: Any, name: str, provider: ScriptedProvider) -> dict[str, Any]:
    """Return what one callback tells of one call, in an event loop of its own."""
    function, given = CALLS[name]

    async def call(callback: Any, receiver: PostHogReceiver) -> None:
        use_callbacks(litellm, [])
        await GLOBAL_LOGGING_WORKER.flush()  # what another test's event loop left to it
        use_callbacks(litellm, [callback])
        place = {"api_base": provider.base_url, "api_key": "k", "max_retries": 0}
        with contextlib.suppress(litellm.exceptions.NotFoundError):
            answer = await getattr(litellm, function)(**place, **given)
            if hasattr(answer, "__aiter__"):
                [piece async for piece in answer]
        while not receiver.events:
            await asyncio.sleep(0.02)
            for logger in litellm_logging._in_memory_loggers:
                if hasattr(logger, "flush_queue"):
                    await logger.flush_queue()
            await posthog_llm.aflush(1)

    with PostHogReceiver() as receiver, pytest.MonkeyPatch.context() as patch:
        for variable in ("POSTHOG_API_URL", "POSTHOG_HOST"):
            patch.setenv(variable, receiver.url)
        patch.setenv("POSTHOG_API_KEY", "phc_shapes")
        patch.setattr(litellm_logging, "_in_memory_loggers", [])
        asyncio.run(call(callback() if callable(callback) else callback, receiver))
        (event,) = receiver.events
        return {"event": event["event"], **event["properties"]}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", CALLS)
def test_an_event_differs_from_litellms_where_it_is_said(
    provider: ScriptedProvider, name: str
) -> None:
    theirs, ours = properties("posthog", name, provider), properties(PostHogLogger, name, provider)
    found = {key for key, value in theirs.items() if ours.get(key) != value} - NEVER_ALIKE
    assert found == {key for key, names in DIFFERENT.items() if name in names}


def test_each_difference_has_its_row() -> None:
    page = (Path(__file__).parent.parent / "docs" / "from-litellm.md").read_text()
    rows = re.findall(r"^\| `([$\w]+)` \|", page, re.M)
    assert sorted(rows) == sorted(DIFFERENT)
