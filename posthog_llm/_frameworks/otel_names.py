"""What the names of OpenInference's spans say: a class and its method, such as `Tool.acall`.

Some of its packages set a span's kind, and its content, only when it ends. What is inside must
know what it belongs to when it starts.
"""

from __future__ import annotations

import re
from functools import lru_cache

_SCOPE = "openinference.instrumentation."
_MODEL = r"(a?(stream_)?(chat|complete|predict)|a?(stream_)?structured_predict)"
_PATTERNS = {
    "agent": r"Agent(Workflow)?\.(a?run|run_async|a?(stream_)?chat|a?query)",
    "tool": r"Tool\.(a?call|__call__|run|run_async)",
    "retrieval": r"Retriever\.(a?retrieve|run|run_async)",
    "rerank": r"(Ranker|Rerank|Reranker)\.(a?postprocess_nodes|run|run_async)",
    "embedding": r"(Embedding|Embedder)\.(a?get_\w+|run|run_async)",
    "generation": rf"Generator\.(run|run_async)|(?<!Engine)(?<!Agent)(?<!Workflow)\.{_MODEL}",
}
_KINDS = {kind: re.compile(rf"\w*({pattern})") for kind, pattern in _PATTERNS.items()}
_RUNS = ("run", "run_async", "kickoff", "kickoff_async")
_CHAIN = re.compile(r"a?(run|query|(stream_)?chat|synthesize)|run_async")
_ID = re.compile(r"[_-][0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=\.|$)")
_PRIVATE = re.compile(r"\s*\.(_\w+|acall)$")
"""A private method or an operator; `acall` is the operator `__call__` of asynchronous code."""
_CALL = re.compile(r"(\w+)(?:\(.*\))?\.(\w+)", re.DOTALL)
"""`Predict.forward`, or `Predict(Signature).forward`."""


def more_exact(kind: str | None, scope: str, name: str) -> str | None:
    """Return the kind that a span says, or its name if that says more: some agents are chains."""
    if kind not in (None, "chain"):
        return kind
    found = _kind_of_call(scope, name)
    return found if kind is None or found == "agent" else kind


@lru_cache(1024)
def _kind_of_call(scope: str, name: str) -> str | None:
    """Return the kind of a span whose attributes come later; `None` if it is no step of its own.

    Of the methods whose class says nothing, only those that begin a run are known.
    """
    call = _CALL.fullmatch(name)
    if call is None or not scope.startswith(_SCOPE):
        return None
    found = (kind for kind, pattern in _KINDS.items() if pattern.fullmatch(name))
    return next(found, "chain" if _CHAIN.fullmatch(call[2]) else None)


def is_detail(name: str, around: str | None, has_input: bool) -> bool:
    """Whether a chain inside of a step is how its framework is built, not what it was asked for.

    These are private methods and operators, another method of the class around, and what begins
    without input, except a run: that is a component, or a workflow of its own.
    """
    name = _ID.sub("", name)
    call, outer = _CALL.fullmatch(name), _CALL.fullmatch(around or "")
    if call is None:
        return not has_input
    is_inner = outer is not None and outer[1] == call[1] and around != name
    return is_inner or bool(_PRIVATE.search(name)) or not (has_input or call[2] in _RUNS)


@lru_cache(1024)
def readable(name: str) -> str:
    """Return a name without the id of a run, and without a private method or operator."""
    return _PRIVATE.sub("", _ID.sub("", name)) or name
