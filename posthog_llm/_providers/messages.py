"""Anthropic's Messages API: request, response, stream and batch results.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._exchange import Exchange, Failure
from .._narrowing import is_dict, is_list, is_mapping, mapping
from .._record import Helper, RequestFacts, ResponseFacts, Usage
from . import usage
from .chat import as_prompt, text_or_none
from .parsing import parse
from .pieces import append, held, joined
from .sse import Event, Folded, RepeatedChunk

_CONTENT = frozenset({"messages", "system", "model", "tools", "prompt"})
_UNSAID = frozenset({"signature", "encrypted_content", "encrypted_index"})
"""Block fields that only the provider can read."""
_PARTS = {"content", "citations"}
_DEPTH = 64
"""Nesting levels of blocks that are cleaned; deeper ones stay as they are."""
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "compaction_delta": "content"}
_RUNS = ("compaction", "fallback_message", "advisor_message")
_COUNTS = (
    *("input_tokens", "output_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
)
_INPUT = tuple(name for name in _COUNTS if name != "output_tokens")
_LIVES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
_STEPS = ("server_tool_use", "tool_use", "mcp_tool_use")


def read_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    prompt = body.get("messages", as_prompt(body.get("prompt")))
    if (system := body.get("system")) and is_list(prompt):
        prompt = [{"role": "system", "content": system}, *prompt]
    user = body.get("metadata")
    return RequestFacts(
        model=text_or_none(body.get("model")) or exchange.model,
        input=_said(prompt),
        tools=body.get("tools"),
        parameters={k: v for k, v in body.items() if k not in _CONTENT},
        user=text_or_none(user.get("user_id")) if is_mapping(user) else None,
    )


def read_response(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    details = mapping(body.get("usage"))
    steps = _steps(details)
    fallback = next((text_or_none(s.get("model")) for s in steps["fallback_message"]), None)
    blocks = body.get("content", body.get("completion"))
    return ResponseFacts(
        model=fallback or text_or_none(body.get("model")),
        output=[{"role": "assistant", "content": _said(blocks)}] if blocks else None,
        usage=read_usage(_with(details, steps["compaction"])),
        stop_reason=text_or_none(body.get("stop_reason")),
        service_tier=text_or_none(details.get("service_tier")),
        response_id=text_or_none(body.get("id")),
        failure=failure(body.get("error")),
        fast=details.get("speed") == "fast",
        fell_back=fallback is not None,
        inference_geo=text_or_none(details.get("inference_geo")),
        helpers=[
            Helper("advisor", text_or_none(step.get("model")), read_usage(step))
            for step in steps["advisor_message"]
        ],
    )


def _steps(raw: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the runs behind a response that the rest of its usage does not include.

    https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool,
    https://platform.claude.com/docs/en/build-with-claude/compaction,
    https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback
    """
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in _RUNS}
    given = raw.get("iterations")
    for step in given if is_list(given) else ():
        if is_mapping(step) and step.get("type") in found:
            found[step["type"]].append(step)
    return found


def _with(raw: Mapping[str, Any], steps: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return a usage object that includes the tokens of `steps`, under the API's names.

    PostHog reads the lifetimes of cached tokens from the object itself. Cache writes with an
    unknown lifetime are charged as five minutes.
    """
    total: dict[str, Any] = dict(raw)
    for step in steps:
        for name in _COUNTS:
            if name in total or "cache" in name:
                total[name] = (usage.count(total, name) or 0) + (usage.count(step, name) or 0)
        old, new = usage.details(total, "cache_creation"), usage.details(step, "cache_creation")
        if old or new:
            lives = {n: (usage.count(old, n) or 0) + (usage.count(new, n) or 0) for n in _LIVES}
            written = usage.count(total, "cache_creation_input_tokens") or 0
            lives[_LIVES[0]] += max(0, written - sum(lives.values()))
            total["cache_creation"] = lives
    return total


def read_usage(raw: Any) -> Usage:
    """Read a usage object: cached tokens are not part of the input count.

    https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """
    if not is_mapping(raw) or not raw:
        return Usage()
    written = usage.details(raw, "cache_creation")
    return Usage(
        input_tokens=usage.count(raw, "input_tokens"),
        output_tokens=usage.count(raw, "output_tokens"),
        cache_read_tokens=usage.count(raw, "cache_read_input_tokens"),
        cache_write_tokens=usage.count(raw, "cache_creation_input_tokens"),
        cache_write_5m_tokens=usage.count(written, "ephemeral_5m_input_tokens"),
        cache_write_1h_tokens=usage.count(written, "ephemeral_1h_input_tokens"),
        reasoning_tokens=usage.count(
            usage.details(raw, "output_tokens_details"), "thinking_tokens"
        ),
        web_searches=usage.count(usage.details(raw, "server_tool_use"), "web_search_requests"),
        raw=raw,
        cache_tokens_excluded=True,
    )


def failure(error: Any) -> Failure | None:
    """Read an error object from a stream's `error` event or a batch result."""
    if not is_mapping(error):
        return None
    if is_mapping(inner := error.get("error")):
        error = inner
    kind = text_or_none(error.get("type")) or "APIError"
    return Failure(type=kind, message=text_or_none(error.get("message")), code=kind)


def _said(value: Any, depth: int = _DEPTH) -> Any:
    """Return content without empty fields and without those that only the provider can read."""
    if depth == 0:
        return value
    if is_list(value):
        return [_said(item, depth - 1) for item in value]
    if not is_mapping(value):
        return value
    kept = {k: v for k, v in value.items() if v is not None and k not in _UNSAID}
    if kept.get("type") == "redacted_thinking":
        kept.pop("data", None)
    if not kept.get("citations"):
        kept.pop("citations", None)
    for name in _PARTS & kept.keys():
        kept[name] = _said(kept[name], depth - 1)
    return kept


# -- streams -------------------------------------------------------------------------


def fold(source: Iterable[Event]) -> Folded:
    """Fold a stream's events into the message that a non-streamed call would have returned."""
    folding = _Folding()
    for offset, data in source:
        if folding.repeated.takes(data):
            continue
        event = parse(data)
        if is_dict(event):
            folding.end_run()
            folding.add(offset, event)
            folding.begin_run(event, data)
    return folding.done()


class _Folding:
    """Assembles content blocks from their starts and deltas."""

    def __init__(self) -> None:
        self.body: dict[str, Any] = {}
        self.blocks: dict[Any, dict[str, Any]] = {}
        self.json: dict[Any, list[str]] = {}
        """Parts of each tool call's input."""
        self.first: int | None = None
        self.ended = self._counted = False
        self.repeated = RepeatedChunk("text")
        self._target: dict[str, Any] = {}

    def begin_run(self, event: dict[str, Any], data: bytes) -> None:
        """Start a repeated chunk here, if the event is a text delta."""
        delta, index = event.get("delta"), event.get("index")
        if event.get("type") != "content_block_delta" or not isinstance(index, int):
            return
        if not is_dict(delta) or delta.keys() != {"type", "text"}:
            return
        if delta["type"] == "text_delta" and delta["text"]:
            self._target = self.blocks[index]
            self.repeated.begin(data, delta["text"])

    def end_run(self) -> None:
        if text := self.repeated.end():
            append(self._target, "text", text)

    def add(self, offset: int, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            self._grow(offset, event.get("index"), event.get("delta"))
        elif kind == "content_block_start":
            self._start(offset, event.get("index"), event.get("content_block"))
        elif kind == "message_start":
            self._merge(event.get("message"))
        elif kind == "message_delta":
            self._merge(event.get("delta"))
            self._merge({"usage": event.get("usage")})
            self._counted = True
        elif kind == "message_stop":
            self.ended = True
        elif "error" in event:
            self.body["error"], self.ended = event["error"], True
        elif "completion" in event:
            self._complete(offset, event)

    def _merge(self, part: Any) -> None:
        """Copy the fields that are not null; usage is cumulative, field by field."""
        for key, value in part.items() if is_dict(part) else ():
            if key == "usage" and is_dict(value):
                known = held(self.body, key, dict)
                known.update(_without_untold_input(value, known))
            elif value is not None:
                self.body[key] = value

    def _start(self, offset: int, index: Any, block: Any) -> None:
        if not isinstance(index, int) or not is_dict(block):
            return
        self.blocks[index] = dict(block)
        if block.get("type") in _STEPS or any(block.get(k) for k in _DELTAS.values()):
            self._note(offset)

    def _grow(self, offset: int, index: Any, delta: Any) -> None:
        if not isinstance(index, int) or not is_dict(delta):
            return
        block = self.blocks.setdefault(index, {"type": "text"})
        kind = str(delta.get("type"))
        if (key := _DELTAS.get(kind)) and isinstance(text := delta.get(key), str):
            append(block, key, text)
            if text:
                self._note(offset)
        elif kind == "input_json_delta" and isinstance(piece := delta.get("partial_json"), str):
            self.json.setdefault(index, []).append(piece)
            self._note(offset)
        elif kind == "citations_delta" and delta.get("citation"):
            held(block, "citations", list).append(delta["citation"])

    def _complete(self, offset: int, event: dict[str, Any]) -> None:
        """Add a chunk of a legacy text completion."""
        if isinstance(text := event["completion"], str) and text:
            append(self.body, "completion", text)
            self._note(offset)
        self._merge({k: v for k, v in event.items() if k not in ("completion", "type")})
        self.ended = self.ended or bool(event.get("stop_reason"))

    def _note(self, offset: int) -> None:
        self.first = offset if self.first is None else self.first

    def done(self) -> Folded:
        self.end_run()
        for index, pieces in self.json.items():
            text = "".join(pieces)
            if text:
                parsed = parse(text.encode("utf-8", "surrogatepass"))
                self.blocks[index]["input"] = text if parsed is None else parsed
        if self.blocks:
            self.body["content"] = [self.blocks[index] for index in sorted(self.blocks)]
        usage = self.body.get("usage")
        if not self._counted and is_dict(usage):
            # The output count in `message_start` is not the final one.
            self.body["usage"] = {k: v for k, v in usage.items() if k != "output_tokens"}
        return Folded(joined(self.body), self.first, self.ended)


def _without_untold_input(counted: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of an event without an input of 0 that contradicts the known one.

    Some gateways report the input only at the start: https://github.com/envoyproxy/ai-gateway,
    #1631. Next to cached tokens, a 0 is a count.
    """
    found = {name: value for name, value in counted.items() if value is not None}
    if any(found.get(name) for name in _INPUT) or not any(known.get(name) for name in _INPUT):
        return found
    return {name: value for name, value in found.items() if name not in _INPUT}


# -- batches -------------------------------------------------------------------------


def results(body: bytes) -> Iterator[tuple[str, Mapping[str, Any], int]]:
    """Yield the custom id, result and size in bytes of each request that a batch ran.

    https://platform.claude.com/docs/en/api/retrieving-message-batch-results
    """
    for line in body.split(b"\n"):
        entry = parse(line) if line else None
        result = entry.get("result") if is_dict(entry) else None
        if not is_dict(entry) or not is_dict(result):
            continue
        name = str(entry.get("custom_id"))
        if result.get("type") == "succeeded" and is_dict(result.get("message")):
            yield name, result["message"], len(line)
        elif result.get("type") == "errored":
            yield name, {"error": result.get("error")}, len(line)
