"""Files of a multipart request, described without being read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .._exchange import Upload
from .._faults import is_the_programs
from .._narrowing import is_mapping


def uploads(files: Any) -> Iterable[Upload]:
    """Describe a multipart request's files: `{field: file}` or `[(field, file)]`.

    A file is its content, or `(name, content[, media type[, headers]])`.
    """
    for field, file in files.items() if is_mapping(files) else files:
        parts = _parts(file)
        name = parts[0] if isinstance(parts[0], str) else None
        media_type = parts[2] if len(parts) > 2 else None
        yield Upload(field, name, media_type, _size(parts[1]))


def _parts(file: Any) -> Sequence[Any]:
    parts: Sequence[Any] = file
    return parts if isinstance(file, tuple) else (getattr(file, "name", None), file)


def _size(content: Any) -> int | None:
    if isinstance(content, (bytes, bytearray, str)):
        return len(content)
    try:
        position = content.tell()
        size: int = content.seek(0, 2)
        content.seek(position)
    except Exception as error:  # an unseekable file has no known size, which is not a fault
        if is_the_programs(error):
            raise
        return None
    return size
