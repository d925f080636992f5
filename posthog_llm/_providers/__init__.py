"""Pure adapters: bytes of a request and of its answer → what was asked and answered.

One file per wire format. No SDK, no HTTP library, no PostHog.
"""
