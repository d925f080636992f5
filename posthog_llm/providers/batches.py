"""The results of a message batch: many answers in one response, told one by one.

https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..encoding import decoded, decoders
from ..exchange import Exchange, Outcome
from ..faults import guarded
from ..imports import imported
from ..record import Asked, Record, Usage
from . import messages
from .reading import provider_behind, read

_NAMESPACE = uuid.UUID("5e7c9a52-3f1d-5c0a-9d0b-0c9e6a6f5b7d")
_BATCH = {"processing": "batch"}


@dataclass(slots=True)
class Batch:
    """The results of a batch, which may come in several exchanges; read by the worker."""

    id: str
    codecs: Any = None
    """What undoes the content encoding, part after part; `None` before the first."""
    rest: bytes = b""
    """The beginning of a line whose end is in the next part."""


def records(exchange: Exchange) -> Iterator[Record]:
    """Yield what an exchange meant: one record, or one for each finished request of a batch.

    Requests that were cancelled or expired ran no model; so did a failed fetch of results.
    """
    if exchange.reader is not None:
        yield exchange.reader(exchange)
    elif exchange.batch is None:
        yield read(exchange)
    elif exchange.status == 200:
        for name, answer, size in messages.results(_lines(exchange)):
            yield _record(replace(exchange, received=size), name, answer)


def _lines(exchange: Exchange) -> bytes:
    """Return the whole lines that came; what is cut in two waits for the next part."""
    batch: Batch = exchange.batch
    if batch.codecs is None:
        batch.codecs = decoders(exchange.encoding) if exchange.encoding else []
    pieces = [exchange.body] if exchange.body is not None else [*exchange.chunks, *exchange.tail]
    pieces, _ = decoded(pieces, batch.codecs)
    body = batch.rest + b"".join(pieces)
    whole = len(body) if exchange.ended else body.rfind(b"\n") + 1
    batch.rest = body[whole:]
    return body[:whole]


def _record(exchange: Exchange, name: str, answer: Mapping[str, Any]) -> Record:
    provider, base_url = provider_behind(exchange)
    answered = messages.answered(answer, provider)
    answered.usage.cost_usd = _cost(answered.usage, answered.model)
    told = replace(
        exchange,
        id=str(uuid.uuid5(_NAMESPACE, f"{exchange.batch.id}/{name}")),
        started_at=time.time(),
        streamed=False,
        attempts=1,
        outcome=Outcome.ERROR if answered.failure else Outcome.OK,
        request=None,
        body=None,
        headers=None,
        chunks=(),
        tail=(),
    )
    return Record(
        kind="generation",
        exchange=told,
        asked=Asked(parameters={"custom_id": name}),
        answered=answered,
        provider=provider,
        base_url=base_url,
        latency=None,
        time_to_first_token=None,
        outcome=told.outcome,
        failure=answered.failure,
        request_id=None,
        retries=0,
        content_cut=0,
    )


@functools.lru_cache(maxsize=1)
@guarded
def load_prices() -> None:
    """Import the book of prices, where it is installed: on a caller's thread, never the worker's.

    Its first look-ups import the rest of it.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("genai_prices")
        _cost(Usage(1, 1, cache_read_tokens=1, cache_write_tokens=1), "claude-sonnet-4-5")


def _cost(usage: Usage, model: str | None) -> float | None:
    """Return what a batch is charged for this usage, USD; `None` where no price is known.

    PostHog's own book has no price for batches.
    """
    prices: Any = imported("genai_prices")
    if prices is None:
        return None
    cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    counted = prices.Usage(
        input_tokens=(usage.input_tokens or 0) + cached,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
    )
    try:
        price = prices.calc_price(
            counted, model or "", provider_id="anthropic", price_context=_BATCH
        )
    except LookupError:
        return None
    return float(price.total_price)
