"""From finished calls to the official `posthog` client."""
