"""Pure adapters: the bytes of a request and its response → request facts and response facts.

One file per wire format. No SDK, no HTTP library, no PostHog.
"""
