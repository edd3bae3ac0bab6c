"""The configuration: one file, the environment and the command line, read once into frozen values.

``load`` gives a :class:`Config` in which everything is decided: defaults filled in, variables expanded, known
providers completed. Every error names its place: file and line, the variable, or the option.
"""

from __future__ import annotations

from counterfoil.config.codec import decode, encode
from counterfoil.config.known import KNOWN_PROVIDERS, KnownProvider
from counterfoil.config.load import data_folder, ledger_settings, load, parse
from counterfoil.config.model import (
    CaptureConfig,
    Config,
    LedgerConfig,
    Limits,
    LogConfig,
    ProviderConfig,
    RouteConfig,
    ServerConfig,
    TargetConfig,
    Timeouts,
    TlsConfig,
)

__all__ = [
    "KNOWN_PROVIDERS",
    "CaptureConfig",
    "Config",
    "KnownProvider",
    "LedgerConfig",
    "Limits",
    "LogConfig",
    "ProviderConfig",
    "RouteConfig",
    "ServerConfig",
    "TargetConfig",
    "Timeouts",
    "TlsConfig",
    "data_folder",
    "decode",
    "encode",
    "ledger_settings",
    "load",
    "parse",
]
