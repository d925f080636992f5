"""The thread that tells finished calls: read, build, hand over. Never the caller's."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import threading
import time
from typing import Any

from .. import event
from ..faults import guarded, report
from ..observe.outbox import outbox
from ..providers.reading import read
from ..record import Exchange, Outcome
from .background import Backgrounds
from .destinations import Destinations, is_private

_GATHER = 0.1
"""Seconds that the worker lets calls gather: one wake-up for a burst, not one a call."""
_BUSY = 0.001
"""Seconds that the worker keeps the interpreter from others, where it can choose."""
_AT_EXIT = 5.0
"""Seconds that interpreter exit may wait for us."""


class _Marker:
    """Put behind the waiting calls; reached when all of them have been handed over."""

    def __init__(self) -> None:
        self.reached = threading.Event()


class Worker:
    """Reads the outbox in a daemon thread that starts with the first call of a process."""

    def __init__(self) -> None:
        self.destinations = Destinations(self.flush)
        self._forget()

    def _forget(self) -> None:
        """Start anew: at first, and in a forked child, where the thread does not exist."""
        self.destinations.forget_ours()
        self._backgrounds = Backgrounds()
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._lock = threading.Lock()

    # -- life --------------------------------------------------------------------

    @guarded
    def start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="posthog-llm", daemon=True)
                self._thread.start()
        self._last_at_exit()

    def attach(self, client: Any) -> None:
        """Take note of a destination when a client is made for it."""
        if self.destinations.attach(client):
            self._last_at_exit()

    def _last_at_exit(self) -> None:
        """Exit functions run last in, first out: ours must come before the posthog client's."""
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)

    def _at_exit(self) -> None:
        until = time.monotonic() + _AT_EXIT
        for call in list(outbox.open_streams):
            call.end(Outcome.DROPPED)
        self.flush(_AT_EXIT)
        # A client that is only made now registers its own exit function too late to be run.
        self.destinations.flush_ours(max(0.0, until - time.monotonic()))

    def come_at_once(self) -> None:
        self._hurry.set()

    # -- work --------------------------------------------------------------------

    def _run(self) -> None:
        items = outbox.items
        while True:
            self._handle(items.get())
            self._hurry.wait(_GATHER)
            self._hurry.clear()
            busy_since = time.monotonic()
            with contextlib.suppress(queue.Empty):
                while True:
                    self._handle(items.get_nowait())
                    if time.monotonic() - busy_since > _BUSY:
                        time.sleep(0)  # give up the interpreter: a caller may want it
                        busy_since = time.monotonic()

    def _handle(self, item: Any) -> None:
        if isinstance(item, _Marker):
            item.reached.set()
            return
        try:
            self._tell(item)
        except BaseException as error:  # whatever it is, the thread must live on
            report("worker", error)
        finally:
            release(item)

    def _tell(self, exchange: Exchange) -> None:
        record = self._backgrounds.due(read(exchange))
        if record is None:
            return
        wanted = event.destination(record.exchange.scope)
        client = self.destinations.find(wanted)
        if self.destinations.attach(client):
            self._last_at_exit()
        private = is_private(client)
        self.destinations.send(event.build(record, private), client)

    def flush(self, timeout: float | None = 10.0) -> bool:
        """Hand over every call that ended before now. False when `timeout` seconds ran out."""
        thread = self._thread
        if thread is threading.current_thread():
            return False
        if thread is None or not thread.is_alive():
            return self._flush_here()
        marker = _Marker()
        outbox.items.put(marker)
        self._hurry.set()
        return marker.reached.wait(timeout)

    def _flush_here(self) -> bool:
        """Do the worker's work on this thread; there is none, or none can be started any more."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._handle(outbox.items.get_nowait())
        return True


def release(exchange: Exchange) -> None:
    """Let go of what a call kept: its answer may live on in the caller's hands."""
    exchange.request = exchange.body = exchange.form = exchange.client = None
    exchange.chunks = exchange.times = exchange.tail = ()


worker = Worker()
outbox.on_first = worker.start
outbox.on_large = worker.come_at_once
outbox.on_client = worker.attach
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=worker._forget)


def flush(timeout: float = 10.0) -> bool:
    """Deliver everything that was captured before this call; `True` when all was handed over.

    Needed only where no `posthog` client of yours is there to flush: with settings from the
    environment, before a short-lived process ends. Waits `timeout` seconds at most for our
    part, and as many for the client's.
    """
    handed_over = worker.flush(timeout)
    worker.destinations.flush_ours(timeout)
    return handed_over
