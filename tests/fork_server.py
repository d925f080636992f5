"""Programs as children of one process that has imported what takes long.

`python -m tests.fork_server FD` forks a child for each request on a socket. A child runs its
program as `__main__`, in an environment of its own, and ends as any Python process does. What is
under test is not imported before.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import types
from typing import IO

# -- the server's side -----------------------------------------------------------------------


def _serve(requests: socket.socket) -> tuple[str, dict[str, str]]:
    """Fork children until there is nobody to ask; returns in each child what it is to run."""
    ends: dict[int, int] = {}  # where the status of a child goes, by its process id
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker.fileno())
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            _report(ends)
        if requests not in ready:
            continue
        data, fds, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not data:
            os._exit(0)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(fds[0], 1)
            os.dup2(fds[1], 2)
            for fd in (*fds, *ends.values(), *(s.fileno() for s in (requests, woken, waker))):
                os.close(fd)
            program, environment = json.loads(data)
            return program, environment
        ends[pid] = fds[2]
        os.close(fds[0])
        os.close(fds[1])
        requests.send(str(pid).encode())


def _report(ends: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with contextlib.suppress(BrokenPipeError):
                os.write(ends[pid], str(os.waitstatus_to_exitcode(status)).encode())
            os.close(ends.pop(pid))


def main() -> None:
    import sqlite3  # noqa: F401 - all of these for their effect

    import openai
    import posthog  # noqa: F401

    openai.OpenAI(api_key="k").chat.completions  # noqa: B018
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=int(sys.argv[1]))
    program, environment = _serve(requests)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c"]
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    exec(compile(program, "<string>", "exec"), vars(module))


# -- the tests' side -------------------------------------------------------------------------


class Forked:
    """One child, with what the tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, stdout: IO[str], stderr: IO[str], status: IO[bytes]) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._status = status

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Return what it wrote, at its end. Raises `subprocess.TimeoutExpired`, and kills it."""
        texts: dict[str, str] = {}

        def read(name: str) -> None:
            with getattr(self, name) as file:
                texts[name] = file.read()

        readers = [threading.Thread(target=read, args=(name,)) for name in ("stdout", "stderr")]
        for thread in readers:
            thread.start()
        late = threading.Timer(timeout, self.kill)
        late.start()
        self.wait()
        for thread in readers:
            thread.join()
        was_late = not late.is_alive()
        late.cancel()
        if was_late:
            raise subprocess.TimeoutExpired(str(self.pid), timeout, texts["stdout"])
        return texts["stdout"], texts["stderr"]

    def wait(self) -> int:
        if self.returncode is None:
            with self._status as status:
                self.returncode = int(status.read())
        return self.returncode


class ForkServer:
    """Starts the server with the first program, and ends it with this process."""

    def __init__(self) -> None:
        self._requests: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self, program: str, environment: dict[str, str]) -> Forked:
        with self._lock:
            requests = self._requests = self._requests or self._started()
            pipes = [os.pipe() for _ in range(3)]
            writers = [writer for _, writer in pipes]
            data = json.dumps([program, environment]).encode()
            socket.send_fds(requests, [data], writers)
            pid = int(requests.recv(32))
            for writer in writers:
                os.close(writer)
        (out, _), (err, _), (status, _) = pipes
        return Forked(pid, open(out), open(err), open(status, "rb"))

    def _started(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fd = theirs.fileno()
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-m", "tests.fork_server", str(fd)]
        subprocess.Popen(command, pass_fds=[fd], env=environment)
        theirs.close()
        return ours


if __name__ == "__main__":
    main()
