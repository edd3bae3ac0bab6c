"""The vocabulary between the gateway and the protocols.

A surface is pure: it takes bytes and returns values, so every protocol can be tested with recorded traffic cut at any
place. The gateway owns sockets, clocks and records; a surface owns knowledge::

    peek(request)           → Call          which model, streaming or not, who for; faults in the caller's bytes
    refused(request)        → Call          what is left to record of a request that peek refused
    prepare(call, target)   → Outgoing      the same bytes with the model respliced, and the path to send them to
    meter(call)             → Meter         reads the answer as it passes and says what may go out
    render_error(fault, id) → (media type, bytes)

The meter of a stream decides two things besides usage. It keeps back the *terminal* frame, so that the gateway can
commit the record before the client learns that the answer is over, and it withholds the usage frame that the gateway,
not the client, asked for. Everything else leaves in the very bytes it came in.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from counterfoil.errors import Fault
from counterfoil.record.usage import ABSENT, Usage


class Request(Struct, frozen=True, gc=False):
    """A complete request as the server read it. ``path`` is decoded, without the query; header names are lower case.

    ``headers`` keeps the first value of each name; ``body`` is everything after the head, transfer coding removed.
    """

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes


class Call(Struct, frozen=True, kw_only=True, gc=False):
    """What one peek learned of a request. ``model`` is what the client wrote; ``endpoint`` the path to resubmit to.

    ``model`` is empty only for a refused request that named none that can be read.
    """

    endpoint: str
    model: str
    stream: bool
    body: bytes
    content_type: str
    adds_usage: bool = False  # we ask for the usage frame and the client did not
    model_span: tuple[int, int] | None = None  # where the model's JSON value (or form value) lies in ``body``
    end_user: str | None = None
    session_id: str | None = None
    tags: dict[str, Any] | None = None
    service_tier: str | None = None  # as asked; pricing follows what was served
    meters: dict[str, int] | None = None  # what only the request tells: characters of speech input, images asked for
    usage_splice: tuple[int, int, bytes] | None = None  # exchanges body[start:end] so that the stream reports its usage
    replayable: bytes | None = None  # the JSON object to resubmit when the body itself is not one (multipart)


class Outgoing(Struct, frozen=True, gc=False):
    """A request ready for a provider: ``path`` is appended to the provider's base path and may hold a query."""

    path: str
    body: bytes
    content_type: str


class Reading(Struct, gc=False):
    """What a meter learned from an answer. Mutable while the answer passes; the gateway reads it once at the end.

    ``error_code`` is set when the provider reported an error inside an answer that had begun (or in its error body);
    ``complete`` is False when the protocol's own end marker never came.
    """

    usage: Usage = ABSENT
    native_response_id: str | None = None
    native_model: str | None = None
    finish_reason: str | None = None
    service_tier: str | None = None
    region: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    provider_cost_nanos: int | None = None
    complete: bool = True
    has_output: bool = False


class Meter(Protocol):
    """Reads one answer. A unary answer goes to :meth:`whole`; a stream to :meth:`push` and :meth:`end`.

    Stream state the gateway polls after each push, plain attributes for speed:
    ``output_seen`` turns True at the first frame with generated output (a role-only frame is not output);
    ``terminal`` turns True when the protocol's end marker has arrived whole, and then ``push`` keeps it back.
    ``endings`` grows with each frame that ends output (a finish reason) and with the end marker: what comes between
    the last finish reason and the marker, such as usage, is no output, however late it comes.
    """

    output_seen: bool
    terminal: bool
    endings: int

    def push(self, data: bytes) -> bytes:
        """Take the next bytes of the body; give those that may leave now (often ``data`` itself, perhaps empty)."""
        ...

    def end(self) -> bytes:
        """The body is over or the terminal frame has come: give every byte still kept back that the client may have."""
        ...

    def whole(self, status: int, body: bytes) -> None:
        """Read a unary answer (also the error body of a stream request that failed)."""
        ...

    def reading(self) -> Reading:
        """What is known now. Call after :meth:`end` or :meth:`whole`, or at a break; the tail is parsed here."""
        ...


class Surface(Protocol):
    """One protocol as clients speak it."""

    name: str
    path: str  # what clients call, with {model} where a model stands; empty where nothing is served
    protocol: str  # the error shape and key convention: openai, anthropic or google
    unary_output: bool  # False for surfaces without generated text (embeddings, moderations): no throughput

    def peek(self, request: Request) -> Call:
        """Raises :class:`~counterfoil.errors.CallerFault` for a body that cannot be a call."""
        ...

    def refused(self, request: Request) -> Call:
        """What a record may still say of a complete request that :meth:`peek` refused. Never sent; raises nothing."""
        ...

    def prepare(self, call: Call, model: str) -> Outgoing:
        """``call`` for a target whose own name of the model is ``model``."""
        ...

    def meter(self, call: Call) -> Meter: ...

    def streams(self, call: Call, content_type: str) -> bool:
        """Whether an answer of ``content_type`` (status < 400) goes to ``push`` and ``end`` rather than to ``whole``.

        Event streams do, and what a protocol streams otherwise: Gemini's JSON array, the audio of speech.
        """
        ...

    def render_error(self, fault: Fault, request_id: str) -> tuple[str, bytes]:
        """The error body in this protocol's shape; it carries the request id."""
        ...

    def render_stream_error(self, fault: Fault, request_id: str) -> bytes:
        """One event-stream frame in this protocol's shape, for an answer that broke after it began."""
        ...
