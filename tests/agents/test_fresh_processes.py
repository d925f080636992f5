"""Frameworks in a fresh process, which imports them after `instrument`."""

from __future__ import annotations

import importlib.util

import pytest

from posthog_llm.testing import PostHogReceiver, ScriptedProvider

from ..test_processes import Children

PROGRAM = """
import os, threading
posthog_llm.configure(posthog_client=project())
posthog_llm.instrument(langchain=True, openai_agents=True, otel=True)
load = lambda: __import__("{module}")
threads = [threading.Thread(target=load) for _ in range(4)]
[thread.start() for thread in threads]
{imports}
[thread.join() for thread in threads]

def run(name, work):
{run}

def fork():
    child = os.fork()
    if not child:
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def stay():
    begun.set()
    threading.Event().wait()

print(run("forks", fork))
begun = threading.Event()
threading.Thread(target=run, args=("stays", stay), daemon=True).start()
begun.wait()
"""
FRAMEWORKS = {
    "langchain_core.runnables": (
        "from langchain_core.runnables import RunnableLambda",
        '    return RunnableLambda(lambda given: work(), name=name).invoke("x")',
    ),
    "agents": (
        "from agents import set_trace_processors, trace; set_trace_processors([])",
        "    with trace(name):\n        return work()",
    ),
    "opentelemetry.sdk.trace": (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "trace.set_tracer_provider(TracerProvider())",
        '    said = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}\n'
        '    with trace.get_tracer("t").start_as_current_span(name, attributes=said):\n'
        "        return work()",
    ),
}


@pytest.mark.parametrize("module", FRAMEWORKS)
def test_a_process_that_imports_in_threads_forks_in_a_run_and_ends_in_another(
    provider: ScriptedProvider, receiver: PostHogReceiver, module: str
) -> None:
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip("the frameworks have a nox session")
    imports, run = FRAMEWORKS[module]
    program = PROGRAM.format(module=module, imports=imports, run=run)
    assert Children(provider, receiver).run(program).strip() == "0"
    found = [e["properties"] for e in receiver.events if e["event"] == "$ai_trace"]
    outcomes = {said["$ai_span_name"]: said["posthog_llm_outcome"] for said in found}
    assert outcomes == {"forks": "ok", "stays": "dropped"}
    assert len(found) == 2
