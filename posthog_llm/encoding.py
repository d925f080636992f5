"""Content encodings of a streamed answer: the ones that HTTP clients of these SDKs ask for."""

from __future__ import annotations

import zlib
from typing import Any, Protocol

from .imports import imported

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
    """`deflate` means zlib's format; some servers send the bare one."""

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
        # A sync flush, or the caller would wait for a chunk that sits in our compressor.
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
        made = module.ZstdDecompressor()
        self._stream = made.decompressobj() if hasattr(made, "decompressobj") else made

    def feed(self, data: bytes) -> bytes:
        return bytes(self._stream.decompress(data))

    def flush(self) -> bytes:
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
    """Return the first of some packages that is there: the HTTP client imported what it uses."""
    return next((module for name in names if (module := imported(name))), None)


def _codec(encoding: str) -> tuple[Codec, Codec] | None:
    """Return what decodes and what encodes `encoding`, or `None` where nothing does."""
    if encoding in ("gzip", "x-gzip"):
        return _Inflate(zlib.MAX_WBITS | 16), _Deflate(zlib.MAX_WBITS | 16)
    if encoding == "deflate":
        return _InflateEither(), _Deflate(zlib.MAX_WBITS)
    if encoding == "br" and (module := _installed("brotli", "brotlicffi")):
        return _BrotliReader(module), _BrotliWriter(module)
    if encoding == "zstd" and (module := _installed(*_ZSTD)):
        return _ZstdReader(module), _ZstdWriter(module)
    return None


def _codecs(content_encoding: str) -> list[tuple[Codec, Codec]]:
    names = (name.strip() for name in content_encoding.split(","))
    return [codec for name in names if (codec := _codec(name))]


def understood(content_encoding: str, accepted: str) -> str:
    """Return the part of a `Content-Encoding` that the HTTP client will undo.

    It takes an encoding that it does not know for none at all. What it knows, it asked for:
    `accepted` is the request's `Accept-Encoding`.
    """
    known = {"gzip", "x-gzip", "deflate", *(name.strip().lower() for name in accepted.split(","))}
    names = (name.strip().lower() for name in content_encoding.split(","))
    return ",".join(name for name in names if name in known)


def decoders(content_encoding: str) -> list[Codec]:
    """Return what decodes a body with this `Content-Encoding`, in order of use."""
    return [decoder for decoder, _ in reversed(_codecs(content_encoding))]


class Transcoder:
    """Runs a filter over the plain text of an encoded body, and encodes it again.

    The headers, which the caller may read, stay true.
    """

    def __init__(self, content_encoding: str, inner: Codec) -> None:
        codecs = _codecs(content_encoding)
        self._stages = [
            *(decoder for decoder, _ in reversed(codecs)),
            inner,
            *(encoder for _, encoder in codecs),
        ]

    def feed(self, data: bytes) -> bytes:
        for stage in self._stages:
            data = stage.feed(data) if data else data
        return data

    def flush(self) -> bytes:
        data = b""
        for stage in self._stages:
            data = (stage.feed(data) if data else b"") + stage.flush()
        return data
