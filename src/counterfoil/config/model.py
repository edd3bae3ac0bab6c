"""What can be configured: every key, its type, its bounds and its default.

These structs are the one source of the loader's checks, of the ``COUNTERFOIL_…`` variables, of the published JSON
Schema and of ``docs/configuration.md``. Times are seconds, sizes bytes. After loading nothing is left to guess: a
provider has its ``type``, ``base_url`` and ``prices``, and its ``timeouts`` are the general ones with its own on top.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

MIB = 1 << 20
KIB = 1 << 10

DEFAULT_DATA: Final = Path("counterfoil-data")

TARGET: Final = "^[^/]+/.+$"
POINTER: Final = "^/[^,]*$"

ProviderType = Literal["openai", "anthropic", "google"]
CaptureLevel = Literal["full", "metadata", "off"]

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Retention = Annotated[int, Meta(ge=0, le=36_500)]


BACKLOG: Final = 2048
"""Connections that wait to be accepted: a burst, or all that come while a worker starts."""


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """How long a provider may take, phase by phase."""

    connect_seconds: Annotated[Seconds, Meta(description="Until a connection to the provider stands.")] = 10
    first_byte_seconds: Annotated[Seconds, Meta(description="From the request to the first byte of the answer.")] = 300
    idle_seconds: Annotated[Seconds, Meta(description="The longest silence inside an answer.")] = 120
    total_seconds: Annotated[Seconds, Meta(description="The whole attempt, from dispatch to the last byte.")] = 900
    keep_alive_seconds: Annotated[Seconds, Meta(description="How long an idle connection to a provider is kept.")] = 15


class TlsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How a provider's certificate is checked."""

    ca_file: Annotated[Path | None, Meta(description="Trust these authorities (PEM) instead of the system's.")] = None
    verify: Annotated[bool, Meta(description="Check the certificate. Turn off only on a closed network.")] = True


class ProviderConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One place that serves models."""

    type: Annotated[
        ProviderType, Meta(description="The protocol family it speaks. Known names imply it; others must say it.")
    ] = "openai"
    base_url: Annotated[
        str,
        Meta(description="Where its API begins, with the version: https://api.openai.com/v1. Known names imply it."),
    ] = ""
    api_key: Annotated[
        str | None,
        Meta(description="The operator's key; `none` sends no key. Known names fall back to their usual variable."),
    ] = None
    prices: Annotated[str, Meta(description="The catalogue provider whose prices apply. Default: its own name.")] = ""
    headers: Annotated[dict[str, str], Meta(description="Headers added to every request to it.")] = field(
        default_factory=dict[str, str]
    )
    surfaces: Annotated[
        list[str] | None, Meta(description="Endpoints it speaks beyond those of its type, e.g. [messages, rerank].")
    ] = None
    on_disconnect: Annotated[
        Literal["cancel", "drain"] | None,
        Meta(description="When the client leaves first: cancel the call, or read it to its end for the usage."),
    ] = None
    drain_seconds: Annotated[Seconds, Meta(description="How long a drained call may still take.")] = 60
    timeouts: Annotated[Timeouts, Meta(description="Its own timeouts; those not named stay general.")] = Timeouts()
    proxy: Annotated[
        str | None, Meta(description="Reach it through this proxy: http://host:port; `none` for a direct way.")
    ] = None
    tls: Annotated[TlsConfig, Meta(description="How its certificate is checked.")] = TlsConfig()
    connections_max: Annotated[Count, Meta(description="Connections open to it at once, per worker.")] = 1024

    def __repr__(self) -> str:
        """Without the key and the headers: a configuration may be logged or printed, a credential may not."""
        return f"ProviderConfig(type={self.type!r}, base_url={self.base_url!r}, prices={self.prices!r})"


class TargetConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One place an alias may lead to. Written in full or as the bare `provider/model`."""

    target: Annotated[str, Meta(description="provider/model.", pattern=TARGET)]
    weight: Annotated[int, Meta(ge=0, le=1_000_000, description="Its share among weighted targets.")] = 1


class RouteConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What an alias stands for. Written in full, as a list of targets, or as one bare target."""

    targets: Annotated[list[TargetConfig], Meta(min_length=1, max_length=32, description="The places to try.")]
    strategy: Annotated[
        Literal["ordered", "weighted"],
        Meta(
            description="Try them in order, or draw the first by weight. A bare list that holds a weight is weighted."
        ),
    ] = "ordered"


class CaptureConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of every call is kept, and how long."""

    default: Annotated[
        CaptureLevel, Meta(description="full: bodies too; metadata: the record only; off: the record, and no details.")
    ] = "full"
    retention_days: Annotated[Retention, Meta(description="Bodies are erased after so many days; 0 keeps them.")] = 30
    body_bytes_max: Annotated[Count, Meta(description="A larger body is not kept, and the record says so.")] = 32 * MIB


class ByokConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where teams may send their own provider keys (the `base_url` beside a key). Always https."""

    ports: Annotated[list[Annotated[int, Meta(ge=1, le=65535)]], Meta(description="The ports they may name.")] = field(
        default_factory=lambda: [443]
    )
    allow_private: Annotated[
        list[str],
        Meta(description="Networks, such as 10.1.0.0/16, that they may lead to although these are not public."),
    ] = field(default_factory=list[str])
    ca_file: Annotated[
        Path | None, Meta(description="Trust these authorities (PEM) there instead of the system's.")
    ] = None


class EstimatesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of calls whose provider reports no usage. An estimate is marked as one everywhere."""

    tokens: Annotated[
        bool,
        Meta(description="Estimate their tokens; needs the extra `tokenizer`. Otherwise they stay unknown."),
    ] = False


class PlaybackConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How recordings answer, where a request or its key asks for that."""

    ignore: Annotated[
        list[Annotated[str, Meta(pattern=POINTER, max_length=256)]],
        Meta(max_length=32, description="JSON pointers of the body that do not count in the match, e.g. [/user]."),
    ] = field(default_factory=list[str])
    speed: Annotated[
        float,
        Meta(ge=0, le=10_000, description="0: at once; 1: at the recorded pace; more: faster by this factor."),
    ] = 0


class IdempotencyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests with an Idempotency-Key."""

    keep_hours: Annotated[int, Meta(ge=1, le=720, description="How long a key stands for its first request.")] = 24
    wait_seconds: Annotated[
        Seconds, Meta(description="How long a repeat waits for the first call's end in another worker; beyond it 409.")
    ] = 300


class ReplaysConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Bulk runs: what was asked, results, verdicts. The records of their calls are kept like any others."""

    retention_days: Annotated[
        int, Meta(ge=0, le=36_500, description="Runs are deleted so many days after their end; 0 keeps them.")
    ] = 90


class LedgerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How durable the ledger is before an answer ends."""

    durability: Annotated[
        Literal["fsync", "write"],
        Meta(description="fsync: on the disk before the answer ends; write: in the system's cache (outlives us only)."),
    ] = "fsync"
    checkpoint_seconds: Annotated[Seconds, Meta(description="The longest time between two signed checkpoints.")] = 60
    checkpoint_folder: Annotated[
        Path | None, Meta(description="A second place for signed checkpoints, so that a truncated ledger shows.")
    ] = None
    checkpoint_url: Annotated[
        str | None, Meta(description="Another second place: each signed checkpoint is sent there in a POST, as JSON.")
    ] = None
    checkpoint_token: Annotated[
        str | None, Meta(description="Sent to checkpoint_url as `Authorization: Bearer …`.")
    ] = None

    def __repr__(self) -> str:
        """Without the token."""
        return f"LedgerConfig(durability={self.durability!r}, checkpoint_seconds={self.checkpoint_seconds!r})"


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What one client, and all of them, may ask of a worker."""

    body_bytes: Annotated[Count, Meta(description="The largest request body; beyond it 413.")] = 32 * MIB
    header_bytes: Annotated[Count, Meta(description="The largest request head; beyond it 431.")] = 64 * KIB
    header_seconds: Annotated[Seconds, Meta(description="How long a request head may take to arrive.")] = 10
    body_seconds: Annotated[Seconds, Meta(description="How long a request body may take to arrive.")] = 60
    keep_alive_seconds: Annotated[Seconds, Meta(description="How long an idle client connection is kept.")] = 75
    connections: Annotated[Count, Meta(description="Client connections open at once.")] = 10_000
    connections_per_client: Annotated[Count, Meta(description="Of these, from one address.")] = 1_000
    in_flight: Annotated[Count, Meta(description="Calls in flight; beyond it 503.")] = 8_192
    answer_bytes_held: Annotated[
        Count,
        Meta(description="The largest unary answer held until its record is durable; of longer ones the last piece."),
    ] = 8 * MIB


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The listening side."""

    proxy_headers: Annotated[
        bool, Meta(description="Believe X-Forwarded-For and X-Forwarded-Proto from the trusted proxies.")
    ] = False
    trusted_proxies: Annotated[
        list[str], Meta(description="Addresses or networks whose forwarding headers are believed.")
    ] = field(default_factory=lambda: ["127.0.0.1"])
    access_log: Annotated[bool, Meta(description="Write one line per request: who, what and the status, no query.")] = (
        False
    )
    tls_cert: Annotated[Path | None, Meta(description="Serve HTTPS with this certificate chain (PEM).")] = None
    tls_key: Annotated[Path | None, Meta(description="The certificate's private key (PEM).")] = None
    shutdown_seconds: Annotated[Seconds, Meta(description="How long calls in flight may still run after SIGTERM.")] = 30


class LogConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What the gateway says about itself. Prompts and secrets are never logged."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least severe line written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], Meta(description="auto: console on a terminal, JSON otherwise.")
    ] = "auto"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an operator can set."""

    data: Annotated[
        Path,
        Meta(
            description="The data folder: ledger, keys, journal. Created on first start.",
            extra_json_schema={"default": str(DEFAULT_DATA)},
        ),
    ] = field(default_factory=lambda: DEFAULT_DATA)
    host: Annotated[str, Meta(description="The address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="The port to listen on; 0 lets the system choose.")] = 8080
    workers: Annotated[int, Meta(ge=1, le=64, description="Processes that serve.")] = 1
    providers: Annotated[dict[str, ProviderConfig], Meta(description="The places that serve models, by name.")] = field(
        default_factory=dict[str, ProviderConfig]
    )
    models: Annotated[
        dict[str, RouteConfig], Meta(description="Aliases: a name clients may use, and the targets it stands for.")
    ] = field(default_factory=dict[str, RouteConfig])
    capture: Annotated[CaptureConfig, Meta(description="How much of every call is kept, and how long.")] = (
        CaptureConfig()
    )
    estimates: Annotated[EstimatesConfig, Meta(description="Where a provider reports no usage.")] = EstimatesConfig()
    playback: Annotated[PlaybackConfig, Meta(description="How recordings answer in a provider's place.")] = (
        PlaybackConfig()
    )
    replays: Annotated[ReplaysConfig, Meta(description="How long bulk runs are kept.")] = ReplaysConfig()
    ledger: Annotated[LedgerConfig, Meta(description="How durable the ledger is.")] = LedgerConfig()
    idempotency: Annotated[IdempotencyConfig, Meta(description="Requests with an Idempotency-Key.")] = (
        IdempotencyConfig()
    )
    byok: Annotated[ByokConfig, Meta(description="Where teams may send their own provider keys.")] = field(
        default_factory=ByokConfig
    )
    timeouts: Annotated[Timeouts, Meta(description="How long providers may take.")] = Timeouts()
    limits: Annotated[Limits, Meta(description="What clients may ask of a worker.")] = Limits()
    server: Annotated[ServerConfig, Meta(description="The listening side.")] = ServerConfig()
    prices_file: Annotated[Path | None, Meta(description="Your own prices and discounts, laid over the catalogue.")] = (
        None
    )
    prices_book: Annotated[
        str | None, Meta(description="Price with the book of this content hash. Default: the newest.")
    ] = None
    log: Annotated[LogConfig, Meta(description="What the gateway says about itself.")] = LogConfig()
