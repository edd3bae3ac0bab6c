"""JSON pointers (RFC 6901): a slash before each segment, and ``~`` and ``/`` inside one written ``~0`` and ``~1``."""

from __future__ import annotations

from collections.abc import Iterable


def split(text: str) -> list[str]:
    """The segments of a pointer, unescaped; none of the empty one, which is the whole document."""
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def joined(segments: Iterable[str]) -> str:
    """The pointer of ``segments``."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in segments)
