"""What the gateway hands to the ledger: the intent before a call is dispatched, the settlement when it has ended."""

from __future__ import annotations

from typing import Final, Protocol

from msgspec import Struct

from counterfoil.capture.body import Capture
from counterfoil.errors import GatewayFault
from counterfoil.record.record import CapturePolicy, CaptureState, Record

NO_SLOT: Final = -1
"""The slot of a call that was never admitted (refused before dispatch) and still gets a record."""


class Intent(Struct, frozen=True, gc=False, omit_defaults=True):
    """A call about to be dispatched: enough to write its record should this process not live to do so.

    ``link`` says which generation it reruns or judges (``record.links``).
    """

    request_id: str
    created_at_ms: int
    team_id: str
    app_id: str | None
    key_id: str
    endpoint: str
    model_id: str
    requested_model: str | None
    provider: str
    stream: bool
    byok: bool
    link: str | None = None


class Settlement(Struct, frozen=True, gc=False):
    """A call that has ended. ``slot`` is what ``Ledger.admit`` gave, or :data:`NO_SLOT`.

    ``capture`` holds the bodies to seal and store; it is ignored unless ``policy`` is ``full``. When it is None,
    ``capture_state`` says why (``not_captured`` or ``too_large``).
    """

    slot: int
    record: Record
    policy: CapturePolicy
    capture: Capture | None
    created_at_ms: int
    capture_state: CaptureState = CaptureState.NOT_CAPTURED

    @property
    def bytes(self) -> int:
        """About how many captured bytes it holds."""
        capture = self.capture
        if capture is None:
            return 0
        response = capture.response
        return len(capture.request) + (len(response) if isinstance(response, bytes) else sum(map(len, response)))


class Waiter(Protocol):
    """Whoever is told, on the loop, that a settlement is durable or why it is not; a future of asyncio's is one."""

    def done(self) -> bool:
        """Whether it has been told, or does not want to know any more."""
        ...

    def set_result(self, result: None, /) -> None:
        """The settlement is durable."""
        ...

    def set_exception(self, exception: GatewayFault, /) -> None:
        """It is not, and the client must not have its answer."""
        ...
