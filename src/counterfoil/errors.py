"""Every fault Counterfoil can report, as one tree with three branches by who is to blame.

::

    Fault
    ├── CallerFault      user:…      the request, the key or the account must change first
    ├── UpstreamFault    upstream:…  the provider, or the way to it, failed
    └── GatewayFault     gateway:…   we failed: the ledger, the configuration, a bug, a crash

A fault carries what four different readers need: a stable ``code`` for programs and records, an HTTP ``status`` for
the client, ``retryable`` for whoever decides on another attempt, and a ``message`` that is safe to show: it never
holds a prompt, a credential or a provider's headers. Foreign exceptions are turned into faults where they enter and
chained with ``from``; nothing above the edge knows ``OSError`` or ``apsw.Error``.

The tables below are the whole vocabulary. A fault is made by naming its code: ``CallerFault("invalid_json")``; an
unknown code is a programming error and raises ``KeyError`` at once.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class Kind(NamedTuple):
    """What one code always means: its HTTP status, whether trying again can help, and its default message."""

    status: int
    retryable: bool
    message: str


class Fault(Exception):
    """A fault with a stable code. ``str(fault)`` is the public message."""

    branch: ClassVar[str]
    kinds: ClassVar[dict[str, Kind]]

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        status: int | None = None,
        retryable: bool | None = None,
        param: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        kind = self.kinds[code]
        self.short_code = code
        self.code = f"{self.branch}:{code}"
        self.status = kind.status if status is None else status
        self.retryable = kind.retryable if retryable is None else retryable
        self.message = kind.message if message is None else message
        self.param = param
        self.headers = headers
        super().__init__(self.message)


class CallerFault(Fault):
    """The request, the key or the account must change before this call can work."""

    branch = "user"
    kinds: ClassVar[dict[str, Kind]] = {
        # The bytes of the request.
        "invalid_http": Kind(400, False, "The request is not valid HTTP/1.1."),
        "invalid_json": Kind(400, False, "The request body is not valid JSON."),
        "not_an_object": Kind(400, False, "The request body must be a JSON object."),
        "duplicate_key": Kind(400, False, "The request body names the same key twice."),
        "nested_too_deeply": Kind(400, False, "The request body is nested too deeply."),
        "invalid_multipart": Kind(400, False, "The multipart body could not be read."),
        "invalid_field": Kind(400, False, "A field of the request has the wrong type."),
        "incomplete_body": Kind(400, False, "The request body ended before its announced length."),
        "unsupported_media_type": Kind(415, False, "This endpoint does not take this content type."),
        "unsupported_encoding": Kind(415, False, "Send the request body without a content encoding."),
        "payload_too_large": Kind(413, False, "The request body is larger than this gateway accepts."),
        "headers_too_large": Kind(431, False, "The request headers are larger than this gateway accepts."),
        "request_timeout": Kind(408, True, "The request did not arrive in time."),
        # What it asks for.
        "model_required": Kind(400, False, "The request names no model."),
        "model_not_found": Kind(404, False, "No provider or alias serves this model."),
        "unsupported_surface": Kind(400, False, "The provider of this model does not speak this endpoint's protocol."),
        "unsupported_endpoint": Kind(404, False, "This gateway has no such endpoint; GET /docs lists those it has."),
        "method_not_allowed": Kind(405, False, "This endpoint takes POST only."),
        "no_recording": Kind(404, False, "No recording answers this request, and playback is strict."),
        "idempotency_conflict": Kind(409, False, "This idempotency key was used with a different request."),
        "idempotency_in_progress": Kind(409, True, "The first call with this idempotency key has not ended yet."),
        "idempotency_unavailable": Kind(409, False, "The answer to this idempotency key was given and is not kept."),
        "base_url_refused": Kind(
            403, False, "The host of the team's own base_url has no address that this gateway may connect to."
        ),
        # Who asks.
        "unauthorized": Kind(401, False, "The API key is missing, malformed or unknown."),
        "forbidden": Kind(403, False, "This key may not do that."),
        "not_found": Kind(404, False, "There is no such thing in this team."),
        "conflict": Kind(409, False, "The thing is in a state, or has a name, that does not allow this."),
        # How it ended.
        "client_disconnected": Kind(499, False, "The client closed the connection before the answer ended."),
        # The provider refused the request itself.
        "provider_rejected": Kind(400, False, "The provider rejected the request."),
    }


class UpstreamFault(Fault):
    """The provider, or the way to it, failed."""

    branch = "upstream"
    kinds: ClassVar[dict[str, Kind]] = {
        "connect_failed": Kind(502, True, "The provider could not be reached."),
        "connect_timeout": Kind(504, True, "The provider did not accept a connection in time."),
        "tls_failed": Kind(502, True, "A secure connection to the provider could not be made."),
        "proxy_failed": Kind(502, True, "The proxy on the way to the provider refused the connection."),
        "connection_reset": Kind(502, True, "The provider closed the connection before it answered."),
        "timeout": Kind(504, True, "The provider did not answer in time."),
        "idle_timeout": Kind(504, True, "The provider stopped sending in the middle of its answer."),
        "truncated": Kind(502, True, "The provider's answer ended before it was complete."),
        "invalid_response": Kind(502, True, "The provider's answer is not valid HTTP."),
        "response_too_large": Kind(
            502, False, "A header of the provider's answer is larger than this gateway accepts."
        ),
        "stream_error": Kind(502, True, "The provider reported an error in the middle of its answer."),
        "rate_limited": Kind(429, True, "The provider is over its rate limit."),
        "unauthorized": Kind(401, False, "The provider refused the credential configured for it."),
        "overloaded": Kind(529, True, "The provider is overloaded."),
        "error": Kind(502, True, "The provider answered with an error."),
    }


class GatewayFault(Fault):
    """We failed: the ledger, the configuration, a bug or a crash."""

    branch = "gateway"
    kinds: ClassVar[dict[str, Kind]] = {
        "ledger_unavailable": Kind(503, True, "The ledger cannot be written; nothing was sent to a provider."),
        "overloaded": Kind(503, True, "The gateway is at its limit of calls in flight."),
        "too_many_connections": Kind(503, True, "The gateway is at its limit of connections."),
        "shutting_down": Kind(503, True, "The gateway is shutting down."),
        "interrupted": Kind(502, True, "The gateway stopped before this call ended."),
        "internal": Kind(500, False, "The gateway failed. The record of this call says where."),
    }


class ConfigError(Exception):
    """The configuration, the data folder or the command line cannot be used. Its text tells the operator what to do."""
