"""What became of an attempt: what went wrong with it, what its client gets, what is kept of it."""

from __future__ import annotations

from counterfoil.capture.body import Capture
from counterfoil.errors import CallerFault, Fault, UpstreamFault
from counterfoil.gateway.relay import Relay, Way
from counterfoil.providers.classify import fault_of
from counterfoil.surfaces.base import Call
from counterfoil.surfaces.echo import without_echo


def fault_in(relay: Relay) -> Fault | None:
    """What went wrong with an attempt, as the record says it: on the way, in its status, or inside its body."""
    if relay.fault is not None:
        return relay.fault
    reading = relay.reading()
    if relay.status >= 300:
        return fault_of(relay.status, without_echo(reading.error_message, relay.call.body), reading.error_code)
    if reading.error_code is not None:
        branch, _, code = reading.error_code.partition(":")
        kind = UpstreamFault if branch == "upstream" else CallerFault
        message = without_echo(reading.error_message, relay.call.body)
        return kind(code if code in kind.kinds else "stream_error", message)
    if not reading.complete and reading.finish_reason is None:
        return UpstreamFault("truncated")
    return None


def client_status(relay: Relay, fault: Fault | None) -> int:
    """What the client gets: 499 when it left, the provider's status where that passes through, ours otherwise."""
    if fault is None or fault.status == 499 or not relay.status:
        return relay.status if fault is None else fault.status
    if relay.begun or (relay.fault is None and not unreadable(relay)):
        return relay.status
    return fault.status


def unreadable(relay: Relay) -> bool:
    """Whether a provider's error is nothing an SDK can read (empty, or a page), so that ours is clearer."""
    if relay.status < 300:
        return False
    if relay.status < 400:
        return True
    body = relay.body()
    return not body.strip() or relay.content_type.startswith(b"text/html") or body.lstrip()[:1] == b"<"


def captured(call: Call, relay: Relay | None, kept: tuple[tuple[bytes, bytes], ...]) -> Capture:
    """The bodies of a call, the response in the chunks it came in when it was a stream."""
    if relay is None:
        return Capture(call.body, call.content_type, call.replayable, b"", "", 0, (), kept)
    streamed = relay.way is Way.STREAM
    return Capture(
        call.body,
        call.content_type,
        call.replayable,
        tuple(relay.chunks) if streamed else relay.body(),
        relay.media_type.decode("latin-1"),
        relay.status,
        tuple(relay.offsets_us) if streamed else (),
        kept,
    )
