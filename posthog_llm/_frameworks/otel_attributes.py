"""What OpenTelemetry's spans say of AI, in two conventions; pure functions.

GenAI: https://opentelemetry.io/docs/specs/semconv/gen-ai/
OpenInference: https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md

Content is read by the worker, see `Unread`: no text is parsed on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from .._exchange import Failure
from .._narrowing import is_dict, is_mapping, is_sequence, mapping
from .._snapshot import Unread
from .otel_events import details_in, said_in
from .otel_events import function_call as _call
from .otel_events import parsed as _parsed
from .otel_names import readable

Attributes = Mapping[str, Any]
GENERATION, EMBEDDING, CHAIN = "generation", "embedding", "chain"
_OPERATIONS = {
    "chat": GENERATION,
    "text_completion": GENERATION,
    "generate_content": GENERATION,
    "embeddings": EMBEDDING,
    "invoke_agent": "agent",
    "invoke_workflow": CHAIN,
    "execute_tool": "tool",
    "retrieval": "retrieval",
    "rerank": "rerank",
}
_KINDS = {
    "LLM": GENERATION,
    "EMBEDDING": EMBEDDING,
    "AGENT": "agent",
    "TOOL": "tool",
    "RETRIEVER": "retrieval",
    "RERANKER": "rerank",
    "GUARDRAIL": "guardrail",
    "EVALUATOR": "evaluator",
}
_NAMES = {
    **{name: _OPERATIONS[name] for name in ("chat", "text_completion", "generate_content")},
    **{name: _OPERATIONS[name] for name in ("invoke_agent", "invoke_workflow", "execute_tool")},
    "embeddings": EMBEDDING,
    "call_llm": GENERATION,  # google-adk
    "agent run": "agent",  # pydantic-ai's instrumentation in version 2 and before
    "running tool": "tool",
    "running output function": "tool",
    "running tools": CHAIN,
    "invoke_graph": CHAIN,  # Strands
    "invoke_swarm": CHAIN,
}
"""First words of a span whose attributes are set later, or the whole name."""
_FRAMEWORKS = {
    "pydantic-ai": "pydantic-ai",
    "strands": "strands",
    "gcp.vertex.agent": "google-adk",
    "google-adk": "google-adk",
    "agent-framework": "agent-framework",
    "autogen": "autogen",
    "semantic-kernel": "semantic-kernel",
    "smolagents": "smolagents",
    "llama-index": "llama-index",
    "llamaindex": "llama-index",
    "crewai": "crewai",
    "dspy": "dspy",
    "agno": "agno",
    "haystack": "haystack",
    "langchain": "langchain",
    "langgraph": "langchain",
    "openai-agents": "openai-agents",
    "google-genai": "google-genai",
    "litellm": "litellm",
}
"""`$ai_framework`, by a part of the name of the instrumentation scope."""
_PROVIDERS = {
    "aws.bedrock": "bedrock",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "gemini",
    "gcp.gen_ai": "gemini",
    "gcp.vertex.agent": "gemini",
    "gcp.vertex_ai": "vertex",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "x_ai": "xai",
}
"""Our names of providers, by the convention's where they differ."""
_INPUTS = (
    *("input.value", "gen_ai.tool.call.arguments", "gen_ai.input.messages"),
    *("gen_ai.retrieval.query.text", "reranker.query", "gcp.vertex.agent.tool_call_args"),
    *("gcp.vertex.agent.llm_request", "tool_arguments"),
)
_OUTPUTS = (
    *("output.value", "gen_ai.tool.call.result", "gen_ai.output.messages"),
    *("gen_ai.retrieval.documents", "final_result", "gcp.vertex.agent.tool_response"),
    *("gcp.vertex.agent.llm_response", "tool_response"),
)
_MESSAGES = ("gen_ai.input.messages", "gen_ai.output.messages")
_TEXTS = {
    "model": (
        *("gen_ai.response.model", "gen_ai.request.model", "llm.response.model_name"),
        *("llm.model_name", "llm.request.model_name", "embedding.model_name"),
    ),
    "provider": ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    "response_id": ("gen_ai.response.id",),
    "stop_reason": ("gen_ai.response.finish_reasons", "llm.finish_reason"),
}
_COUNTS = {
    "input_tokens": (
        *("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    ),
    "output_tokens": (
        *("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        "llm.token_count.completion",
    ),
    "cache_read_tokens": (
        *("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write_tokens": (
        *("gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_creation_input_tokens"),
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_tokens": (
        *("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.details.reasoning_tokens"),
        "llm.token_count.completion_details.reasoning",
    ),
    "audio_input_tokens": ("llm.token_count.prompt_details.audio",),
    "audio_output_tokens": ("llm.token_count.completion_details.audio",),
}
_REQUEST = "gen_ai.request."
_PARAMETERS = (
    *("temperature", "max_tokens", "top_p", "top_k", "seed", "frequency_penalty"),
    *("presence_penalty", "stop_sequences"),
)
_MOST_TOKENS = 1 << 53
_FIRST_TOKEN = ("First Token Stream Event", "gen_ai.content.first_token")
"""Names of the events with which OpenInference and others note a stream's first token."""


# -- on the caller's thread -------------------------------------------------------------


def kind_of(name: str, attributes: Attributes) -> str | None:
    """Return the type of a step, `generation` or `embedding`; `None` if it is not about AI."""
    kind = attributes.get("openinference.span.kind")
    operation = attributes.get("gen_ai.operation.name")
    if (kind or operation) and attributes.get("logfire.span_type") == "log":
        return None  # of a call that is over, such as a stream
    if kind is not None:
        return _KINDS.get(kind, CHAIN)
    if operation == "create_agent":
        return None  # no run
    if operation is not None:
        return _OPERATIONS.get(operation, CHAIN)
    if name == "workflow.run" and "workflow.id" in attributes:
        return CHAIN  # agent-framework
    return _NAMES.get(name.partition(" ")[0]) or _NAMES.get(name)


def is_about_ai(attributes: Attributes) -> bool:
    """Whether a finished span, whose name was all that was known, has attributes of AI."""
    return any(key.startswith(("gen_ai.", "llm.", "openinference.", "gcp.")) for key in attributes)


@lru_cache(256)
def framework(scope: str) -> str:
    """Return the framework that an instrumentation scope's name stands for."""
    plain = scope.lower().replace("_", "-")
    return next((name for part, name in _FRAMEWORKS.items() if part in plain), "opentelemetry")


def agent_name(attributes: Attributes) -> str | None:
    return _text(_first(attributes, ("gen_ai.agent.name", "agent.name", "agent_name")))


def name_of(kind: str, name: str, attributes: Attributes) -> str:
    """Return the name of the agent or the tool, else what the span's name says."""
    known = None
    if kind == "agent":
        known = agent_name(attributes)
    elif kind == "tool":
        known = _text(_first(attributes, ("gen_ai.tool.name", "tool.name")))
    if known:
        return known
    operation, _, rest = name.partition(" ")
    return readable(rest if rest and operation in _OPERATIONS else name)


def session_id(attributes: Attributes) -> str | None:
    return _text(_first(attributes, ("gen_ai.conversation.id", "session.id")))


def user_id(attributes: Attributes) -> str | None:
    return _text(_first(attributes, ("user.id", "enduser.id")))


def step_input(attributes: Attributes) -> Any:
    """Return what goes into a step, for the worker to read; `None` if it is not known."""
    if (found := _found(attributes, _INPUTS, "input.mime_type", _began)) is not None:
        return found
    messages = attributes.get("pydantic_ai.all_messages")
    start = attributes.get("pydantic_ai.new_message_index")
    return None if messages is None else Unread(_request_of, (messages, start))


def step_output(attributes: Attributes) -> Any:
    """Return what comes out of a step: documents rather than a text of them."""
    for prefix in ("retrieval.documents.", "reranker.output_documents."):
        if f"{prefix}0.document.content" in attributes:
            return Unread(_documents, _below(prefix, attributes))
    return _found(attributes, _OUTPUTS, "output.mime_type")


def failure_of(span: Any) -> Failure | None:
    """Return why a span failed: its exception event says more than its status."""
    if span.status.is_ok:
        return None
    raised = [mapping(e.attributes) for e in span.events if e.name == "exception"]
    last: Attributes = raised[-1] if raised else {}
    kind = last.get("exception.type") or mapping(span.attributes).get("error.type") or "Error"
    message = last.get("exception.message") or span.status.description
    return Failure(str(kind).rpartition(".")[2], _text(message))


def model_facts(kind: str, span: Any) -> dict[str, Any]:
    """Return the arguments of `capture_generation` that a finished span gives."""
    events = span.events
    attributes: Attributes = {**(span.attributes or {}), **details_in(events)}
    facts: dict[str, Any] = {name: _words(_first(attributes, n)) for name, n in _TEXTS.items()}
    facts.update({name: _count(_first(attributes, names)) for name, names in _COUNTS.items()})
    facts["provider"] = _provider(facts["provider"])
    facts["model"] = facts["model"] or "unknown"
    cached = (facts["cache_read_tokens"] or 0) + (facts["cache_write_tokens"] or 0)
    if cached and facts["input_tokens"] is not None:
        # Both conventions count them as input, unlike some instrumentations.
        facts["cache_tokens_excluded"] = cached > facts["input_tokens"]
    asked, said = said_in(events, kind)
    facts["input"] = _asked(kind, attributes) or asked
    facts["output"] = (_said(attributes) or said) if kind == GENERATION else None
    facts["tools"] = _tools(attributes)
    given = {name: attributes.get(f"{_REQUEST}{name}") for name in _PARAMETERS}
    facts["parameters"] = {name: value for name, value in given.items() if value is not None}
    facts.update(_times(span, events))
    return facts


def _provider(name: str | None) -> str | None:
    """Return our name of a provider; some frameworks give their own name instead of one."""
    known = _PROVIDERS.get(name or "", name)
    return None if known is not None and framework(known) != "opentelemetry" else known


def _times(span: Any, events: Iterable[Any]) -> dict[str, Any]:
    if span.start_time is None or span.end_time is None:
        return {}
    first = next((e.timestamp for e in events if e.name in _FIRST_TOKEN), None)
    return {
        "timestamp": span.start_time / 1e9,
        "latency": max(0.0, (span.end_time - span.start_time) / 1e9),
        "time_to_first_token": None if first is None else max(0.0, (first - span.start_time) / 1e9),
    }


def _asked(kind: str, attributes: Attributes) -> Any:
    if (found := attributes.get("gen_ai.input.messages")) is not None:
        return Unread(_messages, (attributes.get("gen_ai.system_instructions"), found))
    for prefix in ("llm.input_messages.", "gen_ai.prompt.", "embedding.embeddings."):
        if found := _below(prefix, attributes):
            return Unread(_flat_messages if kind == GENERATION else _embedded, found)
    return step_input(attributes)


def _said(attributes: Attributes) -> Any:
    if (found := attributes.get("gen_ai.output.messages")) is not None:
        return Unread(_messages, (None, found))
    for prefix in ("llm.output_messages.", "gen_ai.completion."):
        if found := _below(prefix, attributes):
            return Unread(_flat_messages, found)
    return step_output(attributes)


def _tools(attributes: Attributes) -> Any:
    if (found := attributes.get("gen_ai.tool.definitions")) is not None:
        return Unread(_parsed, found)
    schemas = _below("llm.tools.", attributes)
    return Unread(_schemas, schemas) if schemas else None


def _first(attributes: Attributes, names: Iterable[str]) -> Any:
    for name in names:
        if (found := attributes.get(name)) is not None:
            return found
    return None


def _found(
    attributes: Attributes,
    names: Iterable[str],
    mime_type: str,
    read: Callable[[Any], Any] = _parsed,
) -> Any:
    """Return the first content of several names, for the worker to read."""
    for name in names:
        value = attributes.get(name)
        if value is None or (name in _MESSAGES and value == "[]"):
            continue
        if name in _MESSAGES:
            return Unread(_messages, (None, value))
        return value if attributes.get(mime_type) == "text/plain" else Unread(read, value)
    return None


def _below(prefix: str, attributes: Attributes) -> dict[str, Any]:
    size = len(prefix)
    return {key[size:]: value for key, value in attributes.items() if key.startswith(prefix)}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _words(value: Any) -> str | None:
    """Return a text, or the first of several."""
    if is_sequence(value):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    is_count = type(value) is int and 0 <= value < _MOST_TOKENS
    return value if is_count else None


# -- in the worker ------------------------------------------------------------------------


def _began(value: Any) -> Any:
    """Return the input of a step: of a workflow of LlamaIndex, without its engine's state."""
    found = _parsed(value)
    about = mapping(found)
    return about["start_event"] if "start_event" in about and "init_state" in about else found


def _request_of(raw: tuple[Any, Any]) -> Any:
    """Return the messages that began a run, of all that it ended with."""
    messages, start = _parsed(raw[0]), raw[1]
    if not is_sequence(messages):
        return messages
    start = start if isinstance(start, int) and start > 0 else 0
    answers = (n for n, m in enumerate(messages) if mapping(m).get("role") == "assistant")
    end = next((n for n in answers if n >= start), len(messages))
    return [_message(one) for one in messages[:end]]


def _messages(raw: tuple[Any, Any]) -> Any:
    """Return GenAI messages, whose content is in `parts`, as PostHog shows them."""
    instructions, given = _parsed(raw[0]), _parsed(raw[1])
    first = [{"role": "system", "parts": instructions}] if is_sequence(instructions) else []
    return [_message(one) for one in (*first, *given)] if is_sequence(given) else given


def _message(message: Any) -> Any:
    parts = mapping(message).get("parts")
    if not is_sequence(parts):
        return message
    return {"role": message.get("role", "user"), "content": [_part(part) for part in parts]}


def _part(part: Any) -> Any:
    about = mapping(part)
    kind = about.get("type")
    if kind == "text" and "content" in about:
        return {"type": "text", "text": about["content"]}
    if kind == "tool_call":
        return _call(about.get("id"), about.get("name"), _parsed(about.get("arguments")))
    if kind == "tool_call_response":
        result = about.get("response", about.get("result"))
        return {"type": "tool_result", "tool_use_id": about.get("id"), "content": _parsed(result)}
    if kind == "reasoning":
        return {"type": "thinking", "thinking": about.get("content")}
    return part


def _nested(flat: Mapping[str, Any]) -> Any:
    """Return values by their paths, such as `0.message.role`, as lists and dicts."""
    top: dict[str, Any] = {}
    for path, value in flat.items():
        inner = top
        *steps, last = path.split(".")
        for step in steps:
            below = inner.get(step)
            inner[step] = below if type(below) is dict else {}
            inner = inner[step]
        inner[last] = value
    return _lists(top)


def _lists(value: Any) -> Any:
    if not is_dict(value):
        return value
    items: dict[str, Any] = {key: _lists(item) for key, item in value.items()}
    if items and all(key.isdecimal() for key in items):
        return [items[key] for key in sorted(items, key=int)]
    return items


def _flat_messages(flat: Mapping[str, Any]) -> Any:
    messages = _nested(flat)
    return [_open_message(one) for one in messages] if is_sequence(messages) else messages


def _open_message(one: Any) -> Any:
    """Return a message of OpenInference as PostHog shows it."""
    message = mapping(mapping(one).get("message") or one)
    content = message.get("content")
    parts = message.get("contents")
    if is_sequence(parts):
        content = [_open_part(mapping(part).get("message_content", part)) for part in parts]
    calls = [_open_call(call) for call in _sequence(message.get("tool_calls"))]
    if calls:
        text = [{"type": "text", "text": content}] if isinstance(content, str) and content else ()
        content = [*(content if is_sequence(content) else text), *calls]
    said = {"role": message.get("role", "assistant"), "content": content}
    if (answers := message.get("tool_call_id")) is not None:
        said["tool_call_id"] = answers
    return said


def _open_part(part: Any) -> Any:
    about = mapping(part)
    url = mapping(mapping(about.get("image")).get("image")).get("url")
    return part if url is None else {"type": "image_url", "image_url": {"url": url}}


def _open_call(call: Any) -> Any:
    about = mapping(mapping(call).get("tool_call", call))
    function = mapping(about.get("function") or about)
    return _call(about.get("id"), function.get("name"), _parsed(function.get("arguments")))


def _embedded(flat: Mapping[str, Any]) -> Any:
    found = [mapping(mapping(one).get("embedding")).get("text") for one in _sequence(_nested(flat))]
    return [text for text in found if text is not None] or None


def _documents(flat: Mapping[str, Any]) -> Any:
    return [mapping(one).get("document", one) for one in _sequence(_nested(flat))]


def _schemas(flat: Mapping[str, Any]) -> Any:
    tools = [mapping(mapping(one).get("tool", one)) for one in _sequence(_nested(flat))]
    return [_parsed(tool.get("json_schema", tool)) for tool in tools]


def _sequence(value: Any) -> Iterable[Any]:
    return value if is_sequence(value) else (value.values() if is_mapping(value) else ())
