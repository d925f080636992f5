"""The seam: observing a call on the caller's thread."""
