"""Chat completions and legacy completions: request, response and stream.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._exchange import Exchange, Failure
from .._narrowing import is_dict, is_list, is_mapping, mapping
from .._record import RequestFacts, ResponseFacts
from . import usage
from .parsing import parse
from .pieces import Latest, append, gather, held, joined, put, say
from .sse import Event, Folded, RepeatedChunk

_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_PARTS = (*_TEXTS, "reasoning_details")
"""Delta fields that some providers fill with typed parts, a few words each."""
_SAID_IN_PARTS = ("name", "arguments", "data", "transcript")
"""Fields that carry content in a function call or audio delta."""
_HEAD: dict[str, type] = {
    **dict.fromkeys(("id", "model", "service_tier", "provider"), str),
    **dict.fromkeys(("usage", "x_groq"), dict),
    **dict.fromkeys(("error", "base_resp"), object),
}
"""The chunk fields that are read, and their types; a value of another type is ignored."""
_OF_CHOICE: dict[str, type] = {"finish_reason": str, "usage": dict, "error": object}
_NOT_PARAMETERS = frozenset({"messages", "model", "tools", "functions", "prompt"})


def read_request(body: Mapping[str, Any], exchange: Exchange) -> RequestFacts:
    prompt = body.get("messages")
    if prompt is None:
        prompt = as_prompt(body.get("prompt"))
    return RequestFacts(
        model=text_or_none(body.get("model")),
        input=prompt,
        tools=body.get("tools") or body.get("functions"),
        parameters={k: v for k, v in body.items() if k not in _NOT_PARAMETERS},
    )


def as_prompt(prompt: Any) -> Any:
    """Return a plain text as a user message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def read_response(body: Mapping[str, Any], provider: str) -> ResponseFacts:
    choices = [c for c in _list(body.get("choices")) if is_mapping(c)]
    output = [message for choice in choices if (message := _message(choice))]
    model = text_or_none(body.get("model"))
    counted = usage.read(_usage(body, choices), provider)
    if counted.web_searches is None and any(_searched(message) for message in output):
        counted.web_searches = 1
    return ResponseFacts(
        model=model,
        output=output or None,
        usage=counted,
        stop_reason=next((s for c in choices if (s := text_or_none(c.get("finish_reason")))), None),
        service_tier=text_or_none(body.get("service_tier")) or _traffic(body),
        response_id=text_or_none(body.get("id")),
        failure=_failure(body, choices),
        upstream=text_or_none(body.get("provider")),
    )


def _traffic(body: Mapping[str, Any]) -> str | None:
    """Return the tier in which Vertex served a request, if its usage names one.

    https://cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo
    """
    extra = usage.details(usage.details(body, "usage"), "extra_properties")
    kind = text_or_none(usage.details(extra, "google").get("traffic_type")) or ""
    return kind.lower().removeprefix("on_demand").strip("_") or None


def _usage(body: Mapping[str, Any], choices: list[Mapping[str, Any]]) -> Any:
    found = body.get("usage")
    if found is None and is_mapping(groq := body.get("x_groq")):
        found = groq.get("usage")
    if found is None:  # Moonshot reports it on the choice
        found = next((c["usage"] for c in choices if is_mapping(c.get("usage"))), None)
    return found


def _failure(body: Mapping[str, Any], choices: list[Mapping[str, Any]]) -> Failure | None:
    """Return why a response with status 200 failed; services report it in several places.

    https://openrouter.ai/docs/api-reference/errors; `XGroq` in Groq's SDK; MiniMax's `base_resp`.
    """
    found: list[Any] = [body.get("error"), *(choice.get("error") for choice in choices)]
    found.append(mapping(body.get("x_groq")).get("error"))
    if body.get("object") == "error":
        found.append(body)
    for error in found:
        if error:
            return failure(error)
    if any(choice.get("finish_reason") == "error" for choice in choices):
        return Failure(type="APIError")
    status = mapping(body.get("base_resp"))
    if code := usage.count(status, "status_code"):
        return failure({"code": code, "message": status.get("status_msg")})
    return None


def failure(error: Any) -> Failure | None:
    """Read the error object that some providers return with status 200, or in a stream."""
    if not error:
        return None
    if not is_mapping(error):
        return Failure(type="APIError", message=str(error))
    code = error.get("code")
    kind = text_or_none(error.get("type"))
    return Failure(
        type="APIError" if kind in (None, "error") else kind,
        message=text_or_none(error.get("message")),
        code=str(code) if isinstance(code, (str, int)) and not isinstance(code, bool) else None,
    )


def _message(choice: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a choice's message without empty fields."""
    source = choice.get("message")
    if isinstance(text := choice.get("text"), str):
        source = {"content": text}
    if not is_mapping(source):
        return None
    said = {k: v for k, v in source.items() if v not in (None, "", []) and k != "role"}
    said.pop("parsed", None)
    role = text_or_none(source.get("role")) or "assistant"
    return {"role": role, "content": said.pop("content", None), **said}


def _searched(message: Mapping[str, Any]) -> bool:
    notes = [note for note in _list(message.get("annotations")) if is_mapping(note)]
    return any(note.get("type") == "url_citation" for note in notes)


def _list(value: Any) -> list[Any]:
    return value if is_list(value) else []


# -- streams -------------------------------------------------------------------------


def fold(source: Iterable[Event]) -> Folded:
    """Fold a stream's chunks into the completion that a non-streamed call would have returned."""
    folding = _Folding()
    for offset, data in source:
        if not folding.repeated.takes(data):
            folding.add(offset, data)
    return folding.done()


class _Folding:
    """Assembles choices from their deltas."""

    def __init__(self) -> None:
        self.body: dict[str, Any] = {}
        self.choices: dict[Any, dict[str, Any]] = {}
        self.latest: dict[Any, Latest] = {}
        """What later deltas may continue, by choice, such as the last tool call of each index."""
        self.first: int | None = None
        self.ended = False
        self.repeated = RepeatedChunk("content")
        self._target: dict[str, Any] = {}

    def add(self, offset: int, data: bytes) -> None:
        """Add a chunk that must be parsed."""
        self._end_run()
        if data[:6] == b"[DONE]":
            self.ended = True
            return
        chunk = parse(data)
        if not is_dict(chunk):
            return
        said = self._merge(chunk)
        if said and self.first is None:
            self.first = offset
        if said:
            self._begin_run(chunk, data)

    def _begin_run(self, chunk: dict[str, Any], data: bytes) -> None:
        """Start a repeated chunk here, if the chunk has one choice with nothing but content."""
        choices = chunk["choices"]
        if len(choices) != 1 or choices[0].get("finish_reason") is not None:
            return
        index, delta = choices[0].get("index"), choices[0].get("delta")
        if isinstance(index, int) and is_dict(delta) and set(delta) <= {"content", "role"}:
            self._target = self.choices[index]["message"]
            self.repeated.begin(data, delta.get("content"))

    def _end_run(self) -> None:
        if text := self.repeated.end():
            say(self._target, "content", text)

    def _merge(self, chunk: dict[str, Any]) -> bool:
        """Merge one chunk; return whether it has content."""
        _take(self.body, chunk, _HEAD)
        if chunk.get("object") == "error":
            self.body["error"] = chunk
        said = False
        for position, choice in enumerate(_list(chunk.get("choices"))):
            if is_dict(choice):
                said = self._merge_choice(choice, position) or said
        return said

    def _merge_choice(self, choice: dict[str, Any], position: int) -> bool:
        index = choice.get("index", position)
        place = index if isinstance(index, int) else position
        merged = self.choices.setdefault(place, {"index": index, "message": {}})
        _take(merged, choice, _OF_CHOICE)
        if isinstance(text := choice.get("text"), str):
            append(merged, "text", text)
            return bool(text)
        delta = choice.get("delta")
        latest = self.latest.setdefault(place, {})
        return is_dict(delta) and _merge_delta(merged["message"], delta, latest)

    def done(self) -> Folded:
        self._end_run()
        choices = [self.choices[index] for index in sorted(self.choices)]
        finished = bool(choices) and all(choice.get("finish_reason") for choice in choices)
        for choice in choices:
            message = choice["message"]
            if calls := message.get("tool_calls"):
                message["tool_calls"] = [_without_index(call) for call in calls]
        body = joined({**self.body, "choices": choices})
        return Folded(body, self.first, self.ended or finished or bool(body.get("error")))


def _take(into: dict[str, Any], part: dict[str, Any], fields: dict[str, type]) -> None:
    """Copy the non-empty fields, the latest of each; a count of 0 does not replace another."""
    for name, kind in fields.items():
        if (value := part.get(name)) and isinstance(value, kind):
            into[name] = _counted(into.get(name), part) if name == "usage" else value


def _counted(old: Any, part: dict[str, Any]) -> dict[str, Any]:
    """Return a chunk's usage, plus the counts that only an earlier chunk had."""
    new: dict[str, Any] = part["usage"]
    return {**old, **{k: v for k, v in new.items() if v or k not in old}} if is_dict(old) else new


def _merge_delta(message: dict[str, Any], delta: dict[str, Any], latest: Latest) -> bool:
    """Merge a delta into its message; return whether it has content.

    `latest` holds the message's tool calls and parts that may continue.
    """
    said = False
    for key, value in delta.items():
        if key == "tool_calls":
            for part in filter(is_dict, _list(value)):
                said = _merge_call(held(message, key, list), part, latest)
        elif key in ("function_call", "audio") and is_dict(value):
            _merge_parts(held(message, key, dict), value)
            said = said or any(value.get(part) for part in _SAID_IN_PARTS)
        elif key in _TEXTS and isinstance(value, str):
            say(message, key, value)
            said = said or bool(value)
        elif is_list(value) and key in _PARTS:
            said = gather(message, key, value, latest) or said
        elif is_list(value) and type(message.get(key)) is list:
            message[key].extend(value)
        elif value is not None:
            put(message, key, value)
    return said


def _merge_call(calls: list[dict[str, Any]], part: dict[str, Any], latest: Latest) -> bool:
    """Merge part of a tool call."""
    index, identity = part.get("index"), text_or_none(part.get("id"))
    place = index if isinstance(index, (int, str)) else None
    call = (latest.get((place, identity)) if identity else None) or latest.get(place)
    if index is None and not identity and calls:
        call = calls[-1]
    if call is None or _is_another(call, part, identity):
        call = {"index": index}
        calls.append(call)
    latest[place] = latest[place, identity] = call
    for key, value in part.items():
        if is_dict(value):
            _merge_parts(held(call, key, dict), value)
        elif value is not None and key != "index":
            put(call, key, value)
    return True


def _is_another(call: dict[str, Any], part: dict[str, Any], identity: str | None) -> bool:
    """Whether a part begins another call, whatever its index.

    Providers reuse the index of a finished call, or omit it. Gemini gives several calls the index
    0, each complete in one part, and some of its versions send no id.
    """
    if identity:
        return call.get("id") not in (None, "", identity)
    old, new = mapping(call.get("function")), mapping(part.get("function"))
    if not new.get("name") or not _is_whole(old):
        return False
    return new["name"] != old.get("name") or _is_whole(new)


def _is_whole(function: Mapping[str, Any]) -> bool:
    """Whether the arguments are a complete JSON object."""
    given: Any = function.get("arguments")
    text = given[0] if is_list(given) and len(given) == 1 else given
    if not isinstance(text, str) or text[-1:] != "}":
        return False
    return is_dict(parse(text.encode("utf-8", "surrogatepass")))


def _merge_parts(into: dict[str, Any], part: dict[str, Any]) -> None:
    """Concatenate the growing texts of a part; a name, an id and the like come once."""
    for key, value in part.items():
        if isinstance(value, str) and key in ("arguments", "transcript", "data", "input"):
            append(into, key, value)
        elif value not in (None, ""):
            put(into, key, value)


def _without_index(call: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in call.items() if key != "index"}
