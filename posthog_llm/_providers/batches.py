"""Message batch results: many results in one response, recorded one by one.

https://platform.claude.com/docs/en/build-with-claude/batch-processing
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .._encoding import Decoding, decoders
from .._exchange import Exchange, Outcome
from .._record import Record, RequestFacts
from . import messages
from .reading import provider_behind, read

_NAMESPACE = uuid.UUID("5e7c9a52-3f1d-5c0a-9d0b-0c9e6a6f5b7d")


@dataclass(slots=True)
class Batch:
    """The results of a batch, possibly spread over several exchanges; read by the worker."""

    id: str
    codecs: Any = None
    """Decoders of the content encoding, kept from part to part; `None` before the first."""
    rest: list[bytes] = field(default_factory=list[bytes])
    """The beginning of a line that ends in the next part."""


def records(exchange: Exchange) -> Iterator[Record]:
    """Yield the records of an exchange: one, or one for each finished request of a batch.

    Cancelled or expired requests ran no model, and neither did a failed fetch of results.
    """
    if exchange.reader is not None:
        yield exchange.reader(exchange)
    elif exchange.batch is None:
        yield read(exchange)
    elif exchange.status == 200:
        for lines in _lines(exchange):
            for name, answer, size in messages.results(lines):
                yield _record(replace(exchange, received=size), name, answer)


def _lines(exchange: Exchange) -> Iterator[bytes]:
    """Yield the complete lines received; a partial line waits for the next part."""
    batch: Batch = exchange.batch
    if batch.codecs is None:
        batch.codecs = decoders(exchange.encoding) if exchange.encoding else []
    pieces = [exchange.body] if exchange.body is not None else [*exchange.chunks, *exchange.tail]
    for piece in Decoding(pieces, batch.codecs):
        whole = piece.rfind(b"\n") + 1
        if whole:
            yield b"".join((*batch.rest, piece[:whole]))
            batch.rest = []
        batch.rest.append(piece[whole:])
    if exchange.ended:
        yield b"".join(batch.rest)
        batch.rest = []


def _record(exchange: Exchange, name: str, answer: Mapping[str, Any]) -> Record:
    provider, base_url = provider_behind(exchange)
    response = messages.read_response(answer, provider)
    own = replace(
        exchange,
        id=str(uuid.uuid5(_NAMESPACE, f"{exchange.batch.id}/{name}")),
        started_at=time.time(),
        streamed=False,
        attempts=1,
        outcome=Outcome.ERROR if response.failure else Outcome.OK,
        request=None,
        body=None,
        headers=None,
        chunks=(),
        tail=(),
    )
    return Record(
        kind="generation",
        exchange=own,
        request=RequestFacts(parameters={"custom_id": name}),
        response=response,
        provider=provider,
        base_url=base_url,
        latency=None,
        time_to_first_token=None,
        outcome=own.outcome,
        failure=response.failure,
        request_id=None,
        retries=0,
        content_cut=0,
    )
