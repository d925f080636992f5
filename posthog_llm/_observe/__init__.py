"""The seam: what is seen of a call on the caller's thread."""
