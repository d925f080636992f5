"""Child processes whose functions never flush: their events arrive once each all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posthog_llm.testing import PostHogReceiver

TASKS = """
import concurrent.futures, multiprocessing, os, signal, sys, threading, time
import posthog_llm
from posthog_llm._delivery import ending

if "POSTHOG_LLM_SPOOL" not in os.environ:  # a loaded machine may need longer than users wait
    ending._MOST = 30.0

def tell(name):
    posthog_llm.capture_generation(model="m", distinct_id=str(name))
    return name

"""
Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., str]


@pytest.fixture
def start(receiver: PostHogReceiver, tmp_path: Path) -> Start:
    """Start a program, a file that children can import."""

    def start(code: str, **environment: Any) -> subprocess.Popen[str]:
        (tmp_path / "program.py").write_text(TASKS + textwrap.dedent(code))
        own = {"POSTHOG_API_KEY": "phc_test", "POSTHOG_HOST": receiver.url}
        python = {"PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "ignore"}
        python["SSL_CERT_FILE"] = os.environ["SSL_CERT_FILE"]
        given = {name: str(value) for name, value in environment.items()}
        return subprocess.Popen(
            [sys.executable, tmp_path / "program.py"],
            env={"PATH": os.environ["PATH"], **python, **own, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(start: Start) -> Run:
    """Run such a program to its end; returns what it printed."""

    def run(code: str, **environment: Any) -> str:
        process = start(code, **environment)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        assert "Traceback" not in error, error
        return out

    return run


def seen(receiver: PostHogReceiver) -> Counter[str]:
    return Counter(event["distinct_id"] for event in receiver.events)


def once(*names: str) -> Counter[str]:
    return Counter(dict.fromkeys(names, 1))


EVERY_KIND = """
    if __name__ == "__main__":
        context = multiprocessing.get_context(os.environ["METHOD"])
        context.set_forkserver_preload(["posthog"])  # nothing of ours: it takes long to import
        if os.environ["PARENT"]:
            tell("parent")
        processes = [context.Process(target=tell, args=(f"process {n}",)) for n in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            list(executor.map(tell, ["executor 0", "executor 1"]))
        with context.Pool(2) as pool:
            pool.map(tell, ["pool 0", "pool 1", "pool 2"], chunksize=1)
            pool.close()  # leaving the block terminates what works still
            pool.join()
        with context.Pool(2, maxtasksperchild=1) as pool:
            pool.map(tell, ["brief 0", "brief 1", "brief 2"], chunksize=1)
            pool.close()
            pool.join()
"""
CHILDREN = [
    *(f"{way} {n}" for way in ("process", "executor") for n in range(2)),
    *(f"{way} {n}" for way in ("pool", "brief") for n in range(3)),
]


@pytest.mark.parametrize(
    ("method", "parent"),
    [
        ("fork", ""),
        ("fork", "parent"),
        # These children have nothing of their parent's, whatever it did.
        ("forkserver", "parent"),
        ("spawn", "parent"),
    ],
)
def test_children_that_never_flush(
    run: Run, receiver: PostHogReceiver, method: str, parent: str
) -> None:
    run(EVERY_KIND, METHOD=method, PARENT=parent)
    assert seen(receiver) == once(*CHILDREN, *filter(None, [parent]))


@pytest.mark.once  # what is left is files; the ends are those of the test above
def test_children_that_never_flush_leave_the_rest_in_the_spool(
    run: Run, receiver: PostHogReceiver, tmp_path: Path
) -> None:
    receiver.stop()
    spool = tmp_path / "spool"
    run(EVERY_KIND, METHOD="fork", PARENT="parent", POSTHOG_LLM_SPOOL=spool)
    receiver.start()
    run("tell('next'); assert posthog_llm.flush(50)", POSTHOG_LLM_SPOOL=spool)
    assert seen(receiver) == once(*CHILDREN, "parent", "next")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_ends_whose_redactor_does_not(run: Run, method: str) -> None:
    """Nothing of the program's runs on the thread that ends the process."""
    code = """
    ending._MOST = 1.0

    def hang(text):
        threading.Event().wait()

    def child():
        posthog_llm.configure(redact=hang)
        posthog_llm.capture_generation(model="m", distinct_id="u", input="hello")

    if __name__ == "__main__":
        process = multiprocessing.get_context(os.environ["METHOD"]).Process(target=child)
        process.start()
        process.join(30)
        code = process.exitcode
        process.kill()
        assert code == 0
    """
    run(code, METHOD=method)


POOL_IN_WITH = """
    if __name__ == "__main__":
        context = multiprocessing.get_context(os.environ["METHOD"])
        with context.Pool(2, initializer=posthog_llm.install_signal_flush) as pool:
            pool.map(tell, ["0", "1", "2"], chunksize=1)
        pool.join()
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pool_in_with_that_flushes_at_its_signal(
    run: Run, receiver: PostHogReceiver, method: str
) -> None:
    """Leaving the block sends SIGTERM to the workers."""
    run(POOL_IN_WITH, METHOD=method)
    assert seen(receiver) == once("0", "1", "2")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says who wrote")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_worker_that_waits_in_c_hears_its_signal(
    run: Run, receiver: PostHogReceiver, method: str
) -> None:
    """As where the signal came after Python had looked, and before the wait for a task began.

    One that another thread gets does not wake the main thread either.
    """
    run(
        """
        import signal

        def work(lock):
            posthog_llm.install_signal_flush()
            tell("child")
            by_another = lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            threading.Timer(0.5, by_another).start()
            lock.acquire()

        if __name__ == "__main__":
            context = multiprocessing.get_context(os.environ["METHOD"])
            lock = context.Semaphore(0)
            process = context.Process(target=work, args=(lock,))
            process.start()
            process.join(30)
            assert process.exitcode == -signal.SIGTERM, process.exitcode
            process.kill()
        """,
        METHOD=method,
    )
    assert seen(receiver) == once("child")


def test_children_in_odd_places(run: Run, receiver: PostHogReceiver) -> None:
    """Forks by hand, children of children, and one that fails."""
    run(
        """
        def fork(end):
            pid = os.fork()
            if not pid:
                end()
            assert os.waitpid(pid, 0)[1] == 0

        def tell_and_exit(name):
            tell(name)
            sys.exit(0)

        def flush_and_exit():
            tell("forked in a thread")  # whose SystemExit would end the thread alone
            posthog_llm.flush()
            os._exit(0)

        def start(target):
            process = multiprocessing.get_context("fork").Process(target=target)
            process.start()
            process.join()
            return process.exitcode

        def fail():
            tell("grandchild")
            sys.exit(3)

        def parent_of_another():
            tell("child")
            assert start(fail) == 3

        if __name__ == "__main__":
            fork(lambda: tell_and_exit("forked before all calls"))
            tell("parent")
            fork(lambda: tell_and_exit("forked amid the worker's turn"))
            thread = threading.Thread(target=fork, args=(flush_and_exit,))
            thread.start()
            thread.join()
            assert start(parent_of_another) == 0
        """
    )
    names = ["forked before all calls", "forked amid the worker's turn", "forked in a thread"]
    assert seen(receiver) == once("parent", *names, "child", "grandchild")


def test_first_call_while_a_childs_module_is_imported(
    run: Run, receiver: PostHogReceiver, tmp_path: Path
) -> None:
    """`multiprocessing` forgets all exit functions when it begins to run a child."""
    (tmp_path / "early.py").write_text(TASKS + "tell('imported')")
    run(
        """
        if __name__ == "__main__":
            import early
            context = multiprocessing.get_context("forkserver")
            process = context.Process(target=early.tell, args=("late",))
            process.start()
            process.join()
        """
    )
    assert seen(receiver) == {"imported": 2, "late": 1}  # parent and child import it


CELERY = """
    import celery, pathlib

    here = str(pathlib.Path(__file__).parent)
    folders = {"data_folder_in": here, "data_folder_out": here, "control_folder": here}
    app = celery.Celery("program", broker="filesystem://", broker_transport_options=folders)
    app.conf.update(worker_max_tasks_per_child=3, task_ignore_result=True)
    app.task(tell, name="tell")

    if __name__ == "__main__":
        for number in range(30):
            app.send_task("tell", [str(number)])
        app.worker_main([*"worker -c2 --without-gossip --without-mingle".split(), "-lERROR"])
"""


def test_celerys_children(start: Start, receiver: PostHogReceiver) -> None:
    pytest.importorskip("celery", reason="Celery is installed in the session `frameworks` alone")
    worker = start(CELERY)
    receiver.wait_for(30, timeout=30)
    worker.terminate()
    _, error = worker.communicate(timeout=30)
    assert worker.returncode == 0, error
    assert seen(receiver) == once(*map(str, range(30)))
