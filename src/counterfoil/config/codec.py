"""A loaded configuration as bytes, for handing it to worker processes. It holds keys: for a pipe, not for a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from counterfoil.config.model import Config


def encode(config: Config) -> bytes:
    """``config`` as JSON."""
    return msgspec.json.encode(config, enc_hook=_encode)


def decode(data: bytes) -> Config:
    """The configuration that :func:`encode` wrote. Raises :class:`msgspec.ValidationError` for anything else."""
    return msgspec.json.decode(data, type=Config, dec_hook=_decode)


def _encode(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(repr(value))


def _decode(kind: Any, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(str(kind))
