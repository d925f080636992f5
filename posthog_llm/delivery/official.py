"""The official `posthog` package: imported on a caller's thread, and its clients made.

Nothing is imported on a thread of ours: other packages look into `sys.modules` in the middle of
a call, and fail at what another thread has half imported.
"""

from __future__ import annotations

import atexit
import importlib
from typing import Any

from ..faults import guarded
from ..imports import imported
from ..settings import settings

_LATER = ("netrc", "encodings.ascii", "encodings.idna", "encodings.utf_8_sig")
"""What is imported with the first event otherwise, some of it on the package's own thread. The
child of a fork amid that would wait for the import for good."""


@guarded
def load() -> None:
    """Import all that our threads, and those of the package, will use."""
    if imported("posthog") is None:
        import posthog  # noqa: F401  # pyright: ignore[reportUnusedImport] - for its effect
    for name in _LATER:
        importlib.import_module(name)
    if settings().spool is not None:
        from . import spool  # noqa: F401  # pyright: ignore[reportUnusedImport] - for its effect


def package() -> Any:
    """Return the `posthog` package. Raises `ImportError` where `load` could not import it."""
    module = imported("posthog")
    if module is None:
        raise ImportError("the posthog package was not imported")
    return module


def queued_client(api_key: str, host: str) -> Any:
    """Make a client with senders in the background. Raises `RuntimeError` where none can start."""
    cls = package().Posthog
    made = cls.__new__(cls)
    try:
        made.__init__(api_key, host=host)
    except RuntimeError:
        forget_exit(made)  # it would fail there, half made as it is
        raise
    return made


def sync_client(api_key: str, host: str, **settings: Any) -> Any:
    """Make a client that sends on the thread that captures."""
    return package().Posthog(api_key, host=host, sync_mode=True, **settings)


def forget_exit(client: Any) -> None:
    """Undo what a client registered for interpreter exit: `join` in the first 7.x."""
    atexit.unregister(getattr(client, "_atexit", client.join))
