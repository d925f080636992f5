"""Content encodings of streamed responses: those that the SDKs' HTTP clients request."""

from __future__ import annotations

import sys
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, Protocol

from ._faults import is_the_programs
from ._imports import imported

_ZSTD = ("compression.zstd", "backports.zstd", "zstandard")


class Codec(Protocol):
    """One direction of one encoding, piece by piece."""

    def feed(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class _Inflate:
    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.decompressobj(window_bits)

    def feed(self, data: bytes) -> bytes:
        return self._stream.decompress(data)

    def flush(self) -> bytes:
        return self._stream.flush()


class _InflateEither:
    """`deflate` means zlib's format; some servers send raw deflate data."""

    def __init__(self) -> None:
        self._stream: Codec = _Inflate(zlib.MAX_WBITS)
        self._started = False

    def feed(self, data: bytes) -> bytes:
        try:
            return self._stream.feed(data)
        except zlib.error:
            if self._started:
                raise
            self._stream = _Inflate(-zlib.MAX_WBITS)
            return self._stream.feed(data)
        finally:
            self._started = True

    def flush(self) -> bytes:
        return self._stream.flush()


class _Deflate:
    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.compressobj(1, zlib.DEFLATED, window_bits)

    def feed(self, data: bytes) -> bytes:
        # Without a sync flush, the caller would wait for a chunk that is stuck in our compressor.
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def flush(self) -> bytes:
        return self._stream.flush()


class _BrotliReader:
    def __init__(self, module: Any) -> None:
        self._stream = module.Decompressor()
        self._feed = getattr(self._stream, "decompress", None) or self._stream.process

    def feed(self, data: bytes) -> bytes:
        return bytes(self._feed(data))

    def flush(self) -> bytes:
        return b""


class _BrotliWriter:
    def __init__(self, module: Any) -> None:
        self._stream = module.Compressor(quality=0)

    def feed(self, data: bytes) -> bytes:
        process = getattr(self._stream, "process", None) or self._stream.compress
        return bytes(process(data)) + bytes(self._stream.flush())

    def flush(self) -> bytes:
        return bytes(self._stream.finish())


class _ZstdReader:
    def __init__(self, module: Any) -> None:
        self._module = module
        self._stream: Any = None

    def _frame(self) -> Any:
        made = self._module.ZstdDecompressor()
        return made.decompressobj() if hasattr(made, "decompressobj") else made

    def feed(self, data: bytes) -> bytes:
        plain = b""
        while data:  # a body may be several concatenated frames
            if self._stream is None or self._stream.eof:
                self._stream = self._frame()
            plain += self._stream.decompress(data)
            data = self._stream.unused_data if self._stream.eof else b""
        return plain

    def flush(self) -> bytes:
        """Raises `EOFError` for a body that ends within a frame; HTTP clients reject it, too."""
        if self._stream is not None and not self._stream.eof:
            raise EOFError("Zstandard data is incomplete")
        return b""


class _ZstdWriter:
    def __init__(self, module: Any) -> None:
        made = module.ZstdCompressor(level=1)
        self._stream = made.compressobj() if hasattr(made, "compressobj") else made
        # `zstandard` has the mode in the module, the standard library's `zstd` in the class.
        self._block = getattr(module, "COMPRESSOBJ_FLUSH_BLOCK", None)
        if self._block is None:
            self._block = made.FLUSH_BLOCK

    def feed(self, data: bytes) -> bytes:
        return bytes(self._stream.compress(data)) + bytes(self._stream.flush(self._block))

    def flush(self) -> bytes:
        return bytes(self._stream.flush())


def _installed(*names: str) -> Any:
    """Return the first of these packages that is loaded; the HTTP client imports what it uses."""
    return next((module for name in names if (module := imported(name))), None)


def _reader(encoding: str) -> Codec | None:
    if encoding in ("gzip", "x-gzip"):
        return _Inflate(zlib.MAX_WBITS | 16)
    if encoding == "deflate":
        return _InflateEither()
    if encoding == "br" and (module := _installed("brotli", "brotlicffi")):
        return _BrotliReader(module)
    if encoding == "zstd" and (module := _installed(*_ZSTD)):
        return _ZstdReader(module)
    return None


def _writer(encoding: str) -> Codec | None:
    if encoding == "gzip":
        return _Deflate(zlib.MAX_WBITS | 16)
    if encoding == "deflate":
        return _Deflate(zlib.MAX_WBITS)
    if encoding == "br" and (module := _installed("brotli", "brotlicffi")):
        return _BrotliWriter(module)
    if encoding == "zstd" and (module := _installed(*_ZSTD)):
        return _ZstdWriter(module)
    return None


def undone(response: Any) -> str:
    """Return the encodings of a body that the HTTP client will decode, as named in its header.

    The client ignores encodings that it does not know.
    """
    header = response.headers.get("content-encoding")
    if not header:
        return ""
    names = (name.strip().lower() for name in header.split(","))
    known = _known(response)
    return ",".join(name for name in names if name in known and name != "identity")


def _known(response: Any) -> frozenset[str]:
    """Return the encodings for which the package of `response` has decoders."""
    for cls in type(response).__mro__:  # it may be a subclass of the caller's
        package = cls.__module__.partition(".")[0]
        known: Any = getattr(sys.modules.get(f"{package}._decoders"), "SUPPORTED_DECODERS", None)
        if known is not None:
            return frozenset(known)
    return frozenset()


def decoders(content_encoding: str) -> list[Codec]:
    """Return the decoders for a body with this `Content-Encoding`, in order of use."""
    readers = (_reader(name.strip()) for name in content_encoding.split(","))
    return [reader for reader in readers if reader][::-1]


class Decoding:
    """A body that is decoded piece by piece during iteration.

    Afterwards, `error` is what stopped the decoding, if anything did.
    """

    def __init__(self, pieces: Iterable[bytes], codecs: list[Codec]) -> None:
        self._pieces = pieces
        self._codecs = codecs
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._pieces:
                for codec in self._codecs:
                    piece = codec.feed(piece)
                yield piece
        except Exception as error:  # whatever the packages raise, the rest of the body is broken
            self.error = error


def ends_of(pieces: Iterable[bytes], most: int) -> tuple[list[bytes], int]:
    """Return the first and last pieces of a body, and the number of bytes between them.

    Each side has at most half of `most` bytes; the last piece alone may have more.
    """
    head: list[bytes] = []
    tail: deque[bytes] = deque()
    room, size, cut = most // 2, 0, 0
    for piece in pieces:
        room -= len(piece)
        if room >= 0:
            head.append(piece)
            continue
        tail.append(piece)
        size += len(piece)
        while size > most // 2 and len(tail) > 1:
            size -= len(gone := tail.popleft())
            cut += len(gone)
    return [*head, *tail], cut


def unfinished(codecs: list[Codec]) -> Exception | None:
    """Return why a fully decoded body is incomplete; only zstd checks this, as in HTTP clients."""
    try:
        for codec in codecs:
            codec.flush()
    except EOFError as error:
        return error
    return None


def transcoder(response: Any, encoding: str, inner: Codec) -> Transcoder | None:
    """Return a transcoder that runs `inner` over the plain text of `response`, or `None`.

    `encoding` is the result of `undone`.
    """
    writers = [_writer(name) for name in encoding.split(",")]
    try:
        # The HTTP client's own code creates the decoder, for a dummy response: the real one must
        # keep the decoder that it creates for its reader.
        kind: Any = type(response)  # pyright: ignore[reportUnknownVariableType]
        reader = kind._get_content_decoder(SimpleNamespace(headers=response.headers))
    except Exception as error:  # the body cannot be read, and the HTTP client reports that
        if is_the_programs(error):
            raise
        return None
    return Transcoder(reader, inner, [w for w in writers if w]) if all(writers) else None


class Transcoder:
    """Runs a filter over the plain text of an encoded body, and encodes it again.

    The headers, which the caller may read, stay valid. The HTTP client's own decoder decodes the
    body, so undecodable data raises the same exception as without us.
    """

    def __init__(self, reader: Any, inner: Codec, writers: list[Codec]) -> None:
        self._reader = reader
        self._inner = inner
        self._writers = writers
        self._pending = b""
        """What was decoded before the piece that failed."""
        self.error: Exception | None = None
        """What the decoder raised."""

    def feed(self, data: bytes) -> bytes:
        """Raises what the HTTP client raises for a body that it cannot decode."""
        return self._decoded(self._reader.decode, data)

    def flush(self) -> bytes:
        """Return what was held back, if the body has no proper end."""
        pending, self._pending = self._pending, b""
        return pending + self._encoded(self._inner.flush())

    def end(self) -> bytes:
        """Return the end of a body. Raises what the HTTP client raises if the end is missing."""
        data = self._decoded(self._reader.flush) + self.flush()
        end = b""
        for writer in self._writers:
            end = (writer.feed(end) if end else b"") + writer.flush()
        return data + end

    def _decoded(self, decode: Any, *data: bytes) -> bytes:
        try:
            plain = decode(*data)
            for part in (plain,) if isinstance(plain, bytes) else plain:
                self._pending += self._encoded(self._inner.feed(part)) if part else b""
        except Exception as error:
            self.error = error
            raise
        done, self._pending = self._pending, b""
        return done

    def _encoded(self, data: bytes) -> bytes:
        for writer in self._writers:
            data = writer.feed(data) if data else data
        return data
