"""Bytes to values and back, with no I/O: HTTP heads, event streams, JSON objects, multipart bodies."""
