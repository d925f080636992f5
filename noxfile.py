"""`nox` runs all checks; `nox -s bench` and `nox -s docs` run by name."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv|virtualenv"  # uv makes an environment in seconds
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = True

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
SDKS = {
    "newest": ["openai<4", "anthropic<3", "google-genai<4", "posthog<8"],
    "middle": ["openai==2.54.0", "anthropic==0.125.0", "google-genai==2.34.0", "posthog<8"],
    "oldest": ["openai==1.109.1", "anthropic==0.49.0", "google-genai==1.50.0", "posthog==7.0.0"],
}
# What the type stubs are written from.
WRITTEN_FROM = ["openai==3.57.0", "anthropic[bedrock,vertex]==2.14.0"]
# What the stub of `posthog_llm.gemini` is checked with; without Pillow, some of its types are not
# known.
GEMINI = ["google-genai==3.6.1", "pillow"]
# The versions of docs/frameworks.md. pydantic-ai does not work with anthropic 1.x and 2.x yet.
FRAMEWORKS = [
    *("openai==2.54.0", "anthropic==0.125.0", "litellm==1.106.2", "dspy==3.4.1"),
    *("pydantic-ai-slim[openai,anthropic]==2.31.1", "openai-agents==0.20.0", "instructor==1.17.0"),
    *("langchain-openai==1.7.3", "langchain-anthropic==1.7.7"),
    *("langchain==1.5.2", "langgraph==1.2.24"),
    *("llama-index-llms-openai==0.8.3", "llama-index-llms-anthropic==0.12.3"),
    *("smolagents[openai]==1.26.0", "openinference-instrumentation-smolagents==0.1.43"),
    "opentelemetry-exporter-otlp-proto-http",  # for PostHog's own span processor
    *("celery==5.7.0", "ray==2.60.0", "distributed==2026.8.0"),
]
# Agent frameworks with an environment of their own, by the name of their tests in tests/agents.
AGENTS: dict[str, list[str]] = {
    "agent_framework": ["agent-framework-core==1.23.0", "agent-framework-openai==1.17.0"],
    "agno": ["agno==3.1.10", "openai==3.57.0", "openinference-instrumentation-agno==1.0.15"],
    "autogen": ["autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5", "openai==3.57.0"],
    "claude_agents": ["claude-agent-sdk==0.2.189", "openai"],
    "crewai": ["crewai==1.15.30", "openinference-instrumentation-crewai==1.1.21"],
    "dspy": ["dspy==3.4.1", "litellm==1.110.2", "openinference-instrumentation-dspy==0.1.48"],
    "gemini": [
        *("google-adk==2.13.0", "langchain-google-genai==4.4.3"),
        *("llama-index-llms-google-genai==0.11.3", "openai", "anthropic"),
    ],
    "google_adk": ["google-adk==2.13.0", "litellm==1.110.2"],
    "haystack": ["haystack-ai==3.4.1", "openinference-instrumentation-haystack==0.1.46"],
    "llama_index": [
        "llama-index-core==0.14.25",
        "llama-index-llms-openai==0.8.3",
        "openinference-instrumentation-llama-index==4.6.1",
    ],
    "semantic_kernel": ["semantic-kernel==1.45.0", "openai==3.57.0"],
    "strands": ["strands-agents[openai]==1.62.0"],
}
# Other libraries that watch the SDKs, of one resolution: they pin OpenTelemetry differently.
OTHERS = [
    *("openai==3.54.0", "anthropic==2.12.0", "logfire==4.41.0", "langfuse==4.15.6"),
    *("openinference-instrumentation-openai==0.1.66", "ddtrace==4.16.0"),
    "openinference-instrumentation-anthropic==3.1.0",
    "opentelemetry-instrumentation-openai==0.62.4",
    "opentelemetry-instrumentation-anthropic==0.62.4",
]


def _groups(*names: str) -> list[str]:
    return [part for name in names for part in ("--group", name)]


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*_groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the package, its stubs against the SDKs, and what checkers make of samples."""
    session.install("-e", ".[demo]", *WRITTEN_FROM, *GEMINI, *_groups("types", "test"))
    session.run("python", "tests/typing/generate.py", _oldest(session), "--check")
    session.run("mypy")
    session.run("pyright", "--project", ".", "--pythonpath", f"{session.bin}/python")
    session.run("pytest", "-n2", "tests/typing")


@nox.session
def types_oldest(session: nox.Session) -> None:
    """Check the samples beside the oldest SDKs."""
    session.install("-e", ".[demo]", *SDKS["oldest"], *_groups("types", "test"))
    session.run("pytest", "-n2", "tests/typing", "-k", "mypy or pyright")


@nox.session
def stubs(session: nox.Session) -> None:
    """Write the stubs anew, after WRITTEN_FROM has moved to newer SDKs."""
    session.install("-e", ".", *WRITTEN_FROM, *_groups("types"))
    session.run("python", "tests/typing/generate.py", _oldest(session))


def _oldest(session: nox.Session) -> str:
    """Return a directory with the oldest SDKs in it, which nothing imports."""
    directory = str(session.cache_dir / "oldest")
    session.install("--no-deps", "--quiet", "--upgrade", "--target", directory, *SDKS["oldest"][:2])
    return directory


@nox.session(python=PYTHONS)
@nox.parametrize("sdk", list(SDKS))
def tests(session: nox.Session, sdk: str) -> None:
    session.install("-e", ".[demo]", *SDKS[sdk], *_groups("test"))
    session.run("pytest", *session.posargs)


@nox.session(python="3.12")
@nox.parametrize("litellm", ["litellm[proxy]", "litellm==1.100.0"], ids=["newest", "oldest"])
def gateway(session: nox.Session, litellm: str) -> None:
    """Test LiteLLM's callback and its gateway's: LiteLLM pins older SDKs."""
    session.install("-e", ".[litellm]", litellm, "anthropic", "langchain-openai", *_groups("test"))
    files = (
        "compared",
        "docs",
        "gateway",
        "litellm",
        "litellm_calls",
        "litellm_ends",
        "dedup",
        "sampling_traces",
        "shapes_litellm",
    )
    paths = (f"tests/test_{name}.py" for name in files)
    session.run("pytest", "-m", "not once", *paths, *session.posargs)


@nox.session(python="3.12")
def frameworks(session: nox.Session) -> None:
    """Test frameworks that are given our clients, are watched by `instrument`, or spread calls."""
    session.install("-e", ".", *FRAMEWORKS, *_groups("test"))
    files = ("frameworks.py", "otel.py", "fleets.py", "children.py::test_celerys_children")
    paths = (f"tests/test_{name}" for name in files)
    session.run("pytest", "tests/agents", *paths, *session.posargs)


@nox.session(python="3.12")
@nox.parametrize("framework", list(AGENTS), ids=list(AGENTS))
def agents(session: nox.Session, framework: str) -> None:
    """Test the traces of a framework that `frameworks` does not have, such as `agents(crewai)`."""
    session.install("-e", ".", *AGENTS[framework], *_groups("test"))
    session.run("pytest", f"tests/agents/test_{framework}.py", *session.posargs)


@nox.session(python="3.12")
def beside(session: nox.Session) -> None:
    """Test `instrument` and our clients beside other libraries that watch the SDKs."""
    session.install("-e", ".", *OTHERS, *_groups("test"))
    session.run("pytest", "tests/test_beside_others.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure ours beside the bare SDK and posthog.ai; prints the table of docs/performance.md."""
    session.install(".[demo]")
    session.run("python", "tests/bench/overhead.py", *session.posargs)


@nox.session(python="3.12")
def bench_steps(session: nox.Session) -> None:
    """Measure the steps of frameworks, beside the bare frameworks and posthog.ai."""
    session.install("-e", ".", *FRAMEWORKS)
    session.run("python", "tests/bench/steps.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into `site/`, and run every code block of it."""
    session.install("-e", ".[demo]", *_groups("docs", "test"))
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("pytest", "tests/test_docs.py", "tests/test_queries.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Make 100,000 calls in one process: every event arrives, memory stays flat."""
    session.install(".[demo]")
    session.run("python", "tests/bench/soak.py", *session.posargs)
