"""What LiteLLM knows about a call, read for its callback in `posthog_llm.litellm`."""
