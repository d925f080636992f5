"""Answers and requests of Gemini's API in which any value is replaced by any other."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from posthog_llm._exchange import Exchange, Scope
from posthog_llm._providers import gemini, gemini_others, interactions, usage
from posthog_llm._providers.sse import Folded

WIRE = Path(__file__).parent / "wire" / "gemini"
CONTENT = json.loads((WIRE / "content.json").read_text())
CHUNKS = [json.loads(line[6:]) for line in (WIRE / "content.sse").read_text().splitlines() if line]
REQUEST = {
    "contents": [
        {
            "role": "user",
            "parts": [{"text": "a"}, {"inlineData": {"mimeType": "a/b", "data": "x"}}],
        },
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}, "id": "1"}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}]},
        {"role": "user", "parts": [{"fileData": {"fileUri": "gs://a", "mimeType": "video/mp4"}}]},
    ],
    "systemInstruction": {"parts": [{"text": "s"}]},
    "tools": [{"functionDeclarations": [{"name": "f"}]}],
    "generationConfig": {"temperature": 1, "thinkingConfig": {"thinkingBudget": 1}},
}
EMBEDDED = {
    "requests": [{"model": "m", "content": {"parts": [{"text": "a"}]}, "taskType": "T"}],
    "instances": [{"content": "a", "task_type": "T"}],
    "parameters": {"outputDimensionality": 8},
}
VECTORS = {
    "predictions": [{"embeddings": {"values": [1], "statistics": {"token_count": 3}}}],
    "usageMetadata": {"promptTokenCount": 3},
}
DRAWN = {
    "instances": [
        {
            "prompt": "a",
            "image": {"bytesBase64Encoded": "x", "mimeType": "image/png"},
            "referenceImages": [{"referenceImage": {"gcsUri": "gs://a"}}],
        }
    ],
    "parameters": {"sampleCount": 2},
}
PICTURES = {"predictions": [{"bytesBase64Encoded": "x", "mimeType": "image/png", "prompt": "p"}]}
VIDEO = {
    "name": "operations/1",
    "done": True,
    "response": {
        "generateVideoResponse": {"generatedSamples": [{"video": {"uri": "https://a"}}]},
        "videos": [{"gcsUri": "gs://a", "mimeType": "video/mp4"}],
        "raiMediaFilteredReasons": ["r"],
    },
    "error": {"code": 3, "message": "m"},
}
TURNS = {
    "input": [
        {"type": "user_input", "content": [{"type": "text", "text": "a"}]},
        {"type": "function_call", "id": "1", "name": "f", "arguments": {"a": 1}},
        {"type": "function_result", "call_id": "1", "result": {"a": 1}},
    ],
    "system_instruction": "s",
    "generation_config": {"temperature": 1},
    "model": "m",
}
INTERACTION = {
    "id": "1",
    "status": "completed",
    "steps": [
        {"type": "thought", "summary": [{"type": "text", "text": "t"}]},
        {"type": "model_output", "content": [{"type": "image", "data": "x", "mime_type": "a/b"}]},
    ],
    "usage": {
        "total_input_tokens": 1,
        "input_tokens_by_modality": [{"modality": "text", "tokens": 1}],
        "grounding_tool_count": [{"type": "google_search", "count": 2}],
    },
    "errors": [{"message": "m"}],
}
STEPS = [
    {"event_type": "interaction.created", "interaction": {"id": "1", "status": "in_progress"}},
    {"event_type": "step.start", "index": 0, "step": {"type": "function_call", "arguments": {}}},
    {
        "event_type": "step.delta",
        "index": 0,
        "delta": {"type": "arguments_delta", "arguments": "{"},
    },
    {"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "a"}},
    {
        "event_type": "step.delta",
        "index": 2,
        "delta": {"type": "thought_summary", "content": {"type": "text", "text": "a"}},
    },
    {"event_type": "interaction.completed", "interaction": {"usage": {"total_tokens": 3}}},
]
JUNK: list[Any] = [
    None,
    True,
    -1,
    1e300,
    "",
    "x",
    [],
    [1],
    ["x"],
    [[]],
    {},
    {"a": 1},
    [{"text": 1}],
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def hostile(sample: Any) -> Iterator[Any]:
    """Yield the sample with each of its values replaced by each piece of junk."""
    for path in places(sample):
        for junk in JUNK:
            changed = copy.deepcopy(sample)
            if not path:
                continue
            owner = changed
            for key in path[:-1]:
                owner = owner[key]
            owner[path[-1]] = copy.deepcopy(junk)
            yield changed


def exchange() -> Exchange:
    return Exchange("content", "id", Scope(), 0.0, model="m")


@pytest.mark.parametrize(
    ("read", "sample"),
    [
        (gemini.read_request, REQUEST),
        (gemini_others.read_embedding_request, EMBEDDED),
        (gemini_others.read_request, DRAWN),
        (interactions.read_request, TURNS),
    ],
    ids=["content", "embedding", "image", "interaction"],
)
def test_requests(read: Callable[[Any, Exchange], Any], sample: Any) -> None:
    for body in hostile(sample):
        json.dumps(read(body, exchange()).input)


@pytest.mark.parametrize(
    ("read", "sample"),
    [
        (gemini.read_response, CONTENT),
        (gemini_others.read_embedding, VECTORS),
        (gemini_others.read_image, PICTURES),
        (gemini_others.read_video, VIDEO),
        (interactions.read_response, INTERACTION),
    ],
    ids=["content", "embedding", "image", "video", "interaction"],
)
def test_answers(read: Callable[[Any, str], Any], sample: Any) -> None:
    for body in hostile(sample):
        found = read(body, "gemini")
        counted = usage.normalized(found.usage, "gemini-2.5-flash", "gemini")
        for count in (counted.input_tokens, counted.output_tokens, counted.reasoning_tokens):
            assert count is None or (type(count) is int and count >= 0)
        json.dumps(found.output)


@pytest.mark.parametrize(
    ("fold", "read", "sample"),
    [
        (gemini.fold, gemini.read_response, CHUNKS),
        (interactions.fold, interactions.read_response, STEPS),
    ],
    ids=["content", "interaction"],
)
def test_streams(
    fold: Callable[[Any], Folded], read: Callable[[Any, str], Any], sample: list[Any]
) -> None:
    for at, event in enumerate(sample):
        for changed in hostile(event):
            events = [*sample[:at], changed, *sample[at + 1 :]]
            folded = fold((n, json.dumps(e).encode()) for n, e in enumerate(events))
            json.dumps(read(folded.body, "gemini").output)
