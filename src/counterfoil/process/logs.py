"""What the gateway says about itself, on standard error. Never a prompt, never a credential.

The standard library's loggers and two formatters: a package for it, and what it loads for colours, would take a
twentieth of an idle gateway's memory.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from counterfoil.config.model import LogConfig

FIELDS: Final = ("bodies", "checkpoints", "code", "keys", "reason", "run_id", "runs", "state", "status", "worker")
"""What our own loggers put beside an event. Others' extras stay out: nobody has checked that they hold no prompt."""


def _without_query(record: logging.LogRecord) -> bool:
    """Take the query off an access line, where clients put keys. uvicorn's arguments begin with peer, method, path."""
    if isinstance(record.args, tuple) and len(record.args) > 2:
        peer, method, path, *rest = record.args
        record.args = (peer, method, str(path).partition("?")[0], *rest)
    return True


class _Lines(logging.Formatter):
    """One line an event: what happened and how bad it is, who says so and when, and the fields on our list."""

    def entry(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line's parts."""
        extras = vars(record)
        found = {name: extras[name] for name in FIELDS if name in extras}
        found |= {"event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name}
        found["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return found


class _Json(_Lines):
    """For machines."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.entry(record), default=repr)


class _Console(_Lines):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        found = self.entry(record)
        trace = f"\n{found.pop('exception')}" if "exception" in found else ""
        when, level, event, logger = (found.pop(name) for name in ("timestamp", "level", "event", "logger"))
        return f"{when} [{level}] {event} [{logger}]{''.join(f' {k}={v}' for k, v in found.items())}{trace}"


def configure(config: LogConfig) -> None:
    """Let every logger, ours and others' (uvicorn's, asyncio's), write the same lines."""
    level = getattr(logging, config.level.upper())
    console = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Console() if console else _Json())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("uvicorn.access").addFilter(_without_query)
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.WARNING))
