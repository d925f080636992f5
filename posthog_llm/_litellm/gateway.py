"""LiteLLM's gateway process, which ends by a signal without interpreter exit.

Its server stops gracefully and then raises SIGTERM again, so exit functions never run. But every
server that runs the gateway awaits `proxy_shutdown_event` before the end.
https://github.com/BerriAI/litellm/blob/main/litellm/proxy/proxy_server.py
"""

from __future__ import annotations

import sys
from typing import Any

from .._delivery.worker import worker
from .._faults import guarded
from .._observe.call_queue import call_queue
from .wrapping import wrap

_MODULE = "litellm.proxy.proxy_server"
_NAME = "proxy_shutdown_event"
_LONGEST = 4.0
"""How long the gateway's end may wait for us, in seconds; the same as interpreter exit."""


@guarded
def watch() -> None:
    """Deliver everything captured before this process's gateway ends, if there is one."""
    wrap(sys.modules.get(_MODULE), _NAME, _delivering)


def _delivering(event: Any) -> Any:
    def delivering(*args: Any, **kwargs: Any) -> Any:
        _deliver()  # blocking the event loop is fine: no request runs any more
        return event(*args, **kwargs)

    return delivering


@guarded
def _deliver() -> None:
    call_queue.abandon_open()
    worker.flush(_LONGEST)
