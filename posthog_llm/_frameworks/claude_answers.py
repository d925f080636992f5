"""Answers of the model in a run of the Claude Agent SDK, and what their token counts are worth.

An answer comes as several messages with one id: one for each block, each with the usage as it was
when the answer began. So their output count is a placeholder:
https://code.claude.com/docs/en/agent-sdk/cost-tracking. The true one is in the events of the
stream, if the application asks for them, and the sum of a turn is in its result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from time import perf_counter, time
from typing import Any

from .._exchange import Failure
from .._narrowing import is_list, mapping
from .._providers import messages
from .._providers.usage import count
from .._snapshot import snapshot
from .step import ModelStep

FRAMEWORK = "claude-agent-sdk"
_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_MOST_HELD = 200
"""Most answers of a turn that wait for its result."""
_AT_PROVIDER = "server_tool_use"
_FIRST = ("content_block_start", "content_block_delta")


def now() -> tuple[float, float]:
    """Return the Unix time, and a monotonic one."""
    return time(), perf_counter()


class Answer:
    """One answer of the model, while its messages arrive. Made inside of the step around it."""

    def __init__(
        self, message_id: Any, start: Mapping[str, Any], since: tuple[float, float]
    ) -> None:
        """`start`: see `ModelStep`; `since`: when it could begin, see `now`."""
        self.id = message_id
        model = start["model"]
        self.body: dict[str, Any] = {"id": message_id, "model": model, "content": [], "usage": {}}
        self.is_counted = False
        """Whether the output count is the final one."""
        self._started_at, self._clock = since
        self._ended = self._clock
        self._first: float | None = None
        self._step = ModelStep(start, FRAMEWORK, None)

    def add(self, message: Mapping[str, Any]) -> None:
        """Add a message of the CLI's, with one block or all of them."""
        content = message.get("content")
        self.body["content"] += snapshot(content) if is_list(content) else []
        if not self.is_counted:
            self._count(message.get("usage"))
        if message.get("stop_reason"):  # it is known at the end, with the final count
            self.body["stop_reason"] = message["stop_reason"]
            self.is_counted = True
        self._ended = perf_counter()

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Add an event of the API's stream."""
        self._ended = perf_counter()
        if event.get("type") in _FIRST and self._first is None:
            self._first = self._ended - self._clock
        if event.get("type") == "message_delta":
            self._count(event.get("usage"))
            self.body["stop_reason"] = mapping(event.get("delta")).get("stop_reason")
            self.is_counted = count(mapping(event.get("usage")), "output_tokens") is not None

    def _count(self, usage: Any) -> None:
        """Merge counts, which are cumulative; an input of 0 in a later one means untold."""
        known = self.body["usage"]
        known.update({k: v for k, v in mapping(usage).items() if v or not known.get(k)})

    def counted(self, name: str) -> int:
        return count(self.body["usage"], name) or 0

    def fix(self, output_tokens: int | None) -> None:
        """Set the output count; `None`: it is unknown."""
        self.body["usage"]["output_tokens"] = output_tokens

    def end(self, error: BaseException | Failure | str | None = None) -> None:
        """Capture it."""
        facts = messages.read_response(self.body, "anthropic")
        usage = facts.usage
        self._step.end(
            {
                "output": facts.output,
                "stop_reason": facts.stop_reason,
                "service_tier": facts.service_tier,
                "response_id": facts.response_id,
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cache_read_tokens": usage.cache_read_tokens,
                "cache_write_tokens": usage.cache_write_tokens,
                "cache_write_5m_tokens": usage.cache_write_5m_tokens,
                "cache_write_1h_tokens": usage.cache_write_1h_tokens,
                "reasoning_tokens": usage.reasoning_tokens if self.is_counted else None,
                "web_searches": usage.web_searches,
                "cache_tokens_excluded": usage.cache_tokens_excluded,
                "timestamp": self._started_at,
                "latency": max(0.0, self._ended - self._clock),
                "time_to_first_token": self._first,
            },
            error,
        )


class Tally:
    """The answers of one turn's main conversation, which the result's usage is about."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._held: list[Answer] = []
        self._is_lost = False

    def take(self, answer: Answer) -> None:
        """Capture an answer, or hold it until the result tells how much it was."""
        self._sums.update({name: answer.counted(name) for name in _INPUT})
        if answer.is_counted:
            self._sums["output_tokens"] += answer.counted("output_tokens")
            answer.end()
            return
        self._held.append(answer)
        if len(self._held) > _MOST_HELD:
            self._is_lost = True
            _end_uncounted(self._held.pop(0))

    def end(self, usage: Any = None) -> None:
        """Capture the answers that are held; `usage`: the result's.

        It is about exactly these answers if the input counts add up. Then a single unknown output
        count is what is left of the sum. Several are known if they add up, too: a placeholder is
        never more than the true count.
        """
        held, self._held = self._held, []
        reported = mapping(usage)
        rest = count(reported, "output_tokens")
        is_theirs = all((count(reported, name) or 0) == self._sums[name] for name in _INPUT)
        if rest is not None and is_theirs and not self._is_lost:
            rest -= self._sums["output_tokens"]
            if len(held) == 1 and rest >= held[0].counted("output_tokens"):
                held[0].fix(rest)
                held[0].is_counted = True
            elif rest == sum(answer.counted("output_tokens") for answer in held):
                for answer in held:
                    answer.is_counted = True
        for answer in held:
            answer.end() if answer.is_counted else _end_uncounted(answer)


def _end_uncounted(answer: Answer, error: BaseException | Failure | None = None) -> None:
    if any(mapping(block).get("type") == _AT_PROVIDER for block in answer.body["content"]):
        answer.body["usage"] = {}  # a tool at the provider adds to the input, too
    answer.fix(None)
    answer.end(error)


def end_alone(answer: Answer, error: BaseException | Failure | None = None) -> None:
    """Capture an answer that no result is about: a subagent's, or one that broke off."""
    if answer.is_counted:
        answer.end(error)
    else:
        _end_uncounted(answer, error)
