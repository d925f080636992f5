"""Token counts of Gemini's API.

https://ai.google.dev/api/generate-content#UsageMetadata,
https://ai.google.dev/gemini-api/docs/pricing
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .._narrowing import is_list, mapping
from .._record import Usage
from .usage import count

_PER_PROMPT = re.compile(r"(?:^|/)gemini-[12](?:[.-]|$)")
"""Models for which a prompt with searches is charged once, however many there are."""


def read_usage(raw: Mapping[str, Any], ended: bool, uses_urls: bool) -> Usage:
    """Read a usage object: cached tokens are part of the input, thoughts not of the output.

    The results of the provider's tools are counted apart. Those of URLs are charged as input;
    those of searches are not charged by tokens.
    """
    if not raw:
        return Usage()
    prompt, output = _modalities(raw, "promptTokensDetails"), _output(raw)
    given, tools = count(raw, "promptTokenCount"), count(raw, "toolUsePromptTokenCount") or 0
    total = count(raw, "totalTokenCount")
    cached = _modalities(raw, "cacheTokensDetails")
    if uses_urls and given is not None:
        given += tools
        for kind, tokens in _modalities(raw, "toolUsePromptTokensDetails").items():
            prompt[kind] = prompt.get(kind, 0) + tokens
    else:
        total = without_tools(total, tools, given)
    if given is None:
        prompt.clear()
    said = _candidates(raw, given, total if ended else None)
    return Usage(
        input_tokens=given,
        output_tokens=said,
        total_tokens=None if said is None and not ended else total,
        cache_read_tokens=count(raw, "cachedContentTokenCount"),
        reasoning_tokens=count(raw, "thoughtsTokenCount"),
        text_input_tokens=prompt.get("TEXT"),
        audio_input_tokens=prompt.get("AUDIO"),
        image_input_tokens=prompt.get("IMAGE"),
        text_output_tokens=output.get("TEXT"),
        audio_output_tokens=output.get("AUDIO"),
        image_output_tokens=output.get("IMAGE"),
        cached_audio_tokens=cached.get("AUDIO"),
        cached_image_tokens=cached.get("IMAGE"),
        raw=raw,
    )


def without_tools(total: int | None, tools: int, given: int | None) -> int | None:
    """Return a total without the results of tools, if they are part of it."""
    if total is None or total - tools < (given or 0):
        return total
    return total - tools


def _candidates(raw: Mapping[str, Any], given: int | None, total: int | None) -> int | None:
    """Return the output without thoughts.

    The API leaves a count of 0 out; the final total tells it from one that is not known.
    """
    found = count(raw, "candidatesTokenCount", "responseTokenCount")
    if found is not None or given is None or total is None:
        return found
    rest = total - given - (count(raw, "thoughtsTokenCount") or 0)
    return rest if rest >= 0 else None


def _output(raw: Mapping[str, Any]) -> dict[str, int]:
    return _modalities(raw, "candidatesTokensDetails") or _modalities(raw, "responseTokensDetails")


def _modalities(raw: Mapping[str, Any], name: str) -> dict[str, int]:
    """Return token counts by modality: `[{"modality": "TEXT", "tokenCount": 7}]`."""
    found: dict[str, int] = {}
    given = raw.get(name)
    for part in given if is_list(given) else ():
        kind, tokens = mapping(part).get("modality"), count(mapping(part), "tokenCount")
        if isinstance(kind, str) and tokens is not None:
            found[kind] = found.get(kind, 0) + tokens
    return found


def searches(candidates: Sequence[Mapping[str, Any]], model: str | None) -> int | None:
    """Return the searches that are charged: queries, or prompts with any for older models.

    `None` also if there are several and the model is not known.
    """
    queries: list[Any] = []
    for candidate in candidates:
        grounding = mapping(candidate.get("groundingMetadata"))
        for name in ("webSearchQueries", "imageSearchQueries"):
            made = grounding.get(name)
            queries += [q for q in made if q] if is_list(made) else ()
    if not queries or (model is None and len(queries) > 1):
        return None
    return 1 if _PER_PROMPT.search(model or "") else len(queries)
