"""Content encodings of a streamed answer: the ones that HTTP clients of these SDKs ask for."""

from __future__ import annotations

import zlib
from typing import Any, Protocol


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
        self._stream = module.ZstdDecompressor().decompressobj()

    def feed(self, data: bytes) -> bytes:
        return bytes(self._stream.decompress(data))

    def flush(self) -> bytes:
        return bytes(self._stream.flush() or b"")


class _ZstdWriter:
    def __init__(self, module: Any) -> None:
        self._stream = module.ZstdCompressor(level=1).compressobj()
        self._block = module.COMPRESSOBJ_FLUSH_BLOCK

    def feed(self, data: bytes) -> bytes:
        return bytes(self._stream.compress(data)) + bytes(self._stream.flush(self._block))

    def flush(self) -> bytes:
        return bytes(self._stream.flush())


def _brotli() -> Any:
    try:
        import brotli
    except ImportError:
        import brotlicffi as brotli
    return brotli


def _zstandard() -> Any:
    import zstandard

    return zstandard


def reader(encoding: str) -> Codec:
    """Return what decodes `encoding`. Raises `ValueError` or `ImportError` where nothing can."""
    if encoding in ("gzip", "x-gzip"):
        return _Inflate(zlib.MAX_WBITS | 16)
    if encoding == "deflate":
        return _InflateEither()
    if encoding == "br":
        return _BrotliReader(_brotli())
    if encoding == "zstd":
        return _ZstdReader(_zstandard())
    raise ValueError(f"unknown content encoding: {encoding}")


def writer(encoding: str) -> Codec:
    """Return what encodes `encoding`; the mirror of `reader`."""
    if encoding in ("gzip", "x-gzip"):
        return _Deflate(zlib.MAX_WBITS | 16)
    if encoding == "deflate":
        return _Deflate(zlib.MAX_WBITS)
    if encoding == "br":
        return _BrotliWriter(_brotli())
    if encoding == "zstd":
        return _ZstdWriter(_zstandard())
    raise ValueError(f"unknown content encoding: {encoding}")


class Transcoder:
    """Runs a filter over the plain text of an encoded body, and encodes it again.

    The headers, which the caller may read, stay true. `encoding` is the value of
    `Content-Encoding`: the encodings in the order in which they were applied.
    """

    def __init__(self, encoding: str, inner: Codec) -> None:
        self._stages = [*decoders(encoding), inner, *(writer(name) for name in _names(encoding))]

    def feed(self, data: bytes) -> bytes:
        for stage in self._stages:
            data = stage.feed(data) if data else data
        return data

    def flush(self) -> bytes:
        data = b""
        for stage in self._stages:
            data = (stage.feed(data) if data else b"") + stage.flush()
        return data


def _names(encoding: str) -> list[str]:
    names = [name.strip().lower() for name in encoding.split(",")]
    return [name for name in names if name and name != "identity"]


def decoders(encoding: str) -> list[Codec]:
    """Return what decodes a body with this `Content-Encoding`, in order of use."""
    return [reader(name) for name in reversed(_names(encoding))]
