"""What LiteLLM holds of a call, read for its callback in `posthog_llm.litellm`."""
