"""Draw `docs/trace.svg`, the README's picture: the trace that its first example makes.

python -m tests.picture
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from unittest.mock import patch

import posthog_llm
from posthog_llm.testing import PostHogReceiver, Reply, ScriptedProvider

DOCS = Path(__file__).parent.parent / "docs"
LEFT, WIDTH, ROW = 270, 430, 44
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #24292f }
  .small { font-size: 12px; fill: #57606a }
  .trace { fill: #8c959f } .span { fill: #bf8700 } .generation { fill: #1f6feb }
  .paper { fill: #ffffff; stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .paper { fill: #0d1117; stroke: #3d444d }
  }
"""


def draw(events: list[Mapping[str, Any]]) -> str:
    """Return the picture of one trace, from the events as PostHog received them."""
    kinds = ("$ai_trace", "$ai_span", "$ai_generation")
    events = sorted(events, key=lambda event: kinds.index(event["event"]))
    whole = events[0]["properties"]
    starts = [_seconds(event["timestamp"]) - _seconds(events[0]["timestamp"]) for event in events]
    rows = [
        _row(number, event, start, whole["$ai_latency"])
        for number, (event, start) in enumerate(zip(events, starts, strict=True))
    ]
    height, width = ROW * len(events) + 74, LEFT + WIDTH + 20
    who = f"{events[0]['distinct_id']} · session {whole['$ai_session_id']}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="A trace in PostHog">\n<style>{STYLE}</style>\n'
        f'<rect class="paper" x="1" y="1" width="{width - 2}" height="{height - 2}" rx="8"/>\n'
        f'<text x="20" y="32">Trace of {escape(who)}</text>\n' + "\n".join(rows) + "\n</svg>\n"
    )


def _row(number: int, event: Mapping[str, Any], start: float, whole: float) -> str:
    kind = event["event"].removeprefix("$ai_")
    y = 56 + number * ROW
    x = LEFT + start / whole * WIDTH
    length = max(3.0, event["properties"]["$ai_latency"] / whole * WIDTH)
    indent = 20 if kind == "trace" else 40
    return (
        f'<text x="{indent}" y="{y + 12}">{escape(title(event))}</text>\n'
        f'<text class="small" x="{indent}" y="{y + 28}">{escape(details(event))}</text>\n'
        f'<rect class="{kind}" x="{x:.0f}" y="{y}" width="{length:.0f}" height="16" rx="3"/>'
    )


def title(event: Mapping[str, Any]) -> str:
    properties = event["properties"]
    return str(properties.get("$ai_span_name") or properties.get("$ai_model"))


def details(event: Mapping[str, Any]) -> str:
    properties = event["properties"]
    said = [event["event"], f"{properties['$ai_latency']:.2f} s"]
    if event["event"] == "$ai_generation":
        said.append(f"{properties['$ai_input_tokens']} + {properties['$ai_output_tokens']} tokens")
    return " · ".join(said)


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def events_of(code: str) -> list[Mapping[str, Any]]:
    """Run the example against a provider that takes its time; returns what PostHog received."""
    with ScriptedProvider() as provider, PostHogReceiver() as receiver:
        said = {"role": "assistant", "content": "Yes, within 30 days."}
        usage = {"prompt_tokens": 214, "completion_tokens": 38, "total_tokens": 252}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        body = {"id": "c", "object": "chat.completion", "created": 0, "model": "gpt-5-mini"}
        reply = Reply.json({**body, "choices": [choice], "usage": usage})
        reply.delay = 0.4
        provider.script("/chat/completions", reply)
        environment = {
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": provider.base_url,
            "POSTHOG_API_KEY": "phc_picture",
            "POSTHOG_HOST": receiver.url,
        }
        with patch.dict(os.environ, environment):
            exec(compile(code, "README.md", "exec"), {})
            posthog_llm.flush()
        return list(receiver.wait_for(3))


if __name__ == "__main__":
    from .test_docs import example

    (DOCS / "trace.svg").write_text(draw(events_of(example())))
