"""What the gateway says about itself, on standard error. Never a prompt, never a credential."""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog

from counterfoil.config.model import LogConfig

FIELDS: Final = ("bodies", "checkpoints", "code", "reason", "run_id", "state")
"""What our own loggers put beside an event. Others' extras stay out: nobody has checked that they hold no prompt."""


def _without_query(record: logging.LogRecord) -> bool:
    """Take the query off an access line, where clients put keys. uvicorn's arguments begin with peer, method, path."""
    if isinstance(record.args, tuple) and len(record.args) > 2:
        peer, method, path, *rest = record.args
        record.args = (peer, method, str(path).partition("?")[0], *rest)
    return True


def configure(config: LogConfig) -> None:
    """Set up structlog and the standard library's loggers (uvicorn's, asyncio's) to write the same lines."""
    level = getattr(logging, config.level.upper())
    console = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=FIELDS)],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("uvicorn.access").addFilter(_without_query)
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.WARNING))
