"""Who a call is for, from its key and headers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from counterfoil.gateway.attribution import app_of, replay_of, session_of


def holder(app_id: str | None) -> Any:
    """A principal, as far as attribution looks at one."""
    return SimpleNamespace(app_id=app_id)


@pytest.mark.parametrize(
    ("own", "headers", "app"),
    [
        ("web", {b"x-app-id": b"other"}, "web"),
        (None, {b"x-app-id": b"batch-jobs", b"x-title": b"T"}, "batch-jobs"),
        (None, {b"http-referer": b"https://user:pw@shop.example/chat/?q=secret#x"}, "shop.example/chat"),
        (None, {b"referer": b"https://shop.example/"}, "shop.example"),
        (None, {b"x-title": "Möbel & Co.".encode()}, "m-bel-co"),
        (None, {b"x-app-id": b"a\x01b"}, "ab"),
        (None, {b"referer": b"http://[::1"}, None),
        (None, {}, None),
    ],
    ids=["key", "header", "referer", "bare-host", "title", "control", "damaged", "none"],
)
def test_the_app_is_the_keys_then_the_headers(own: str | None, headers: dict[bytes, bytes], app: str | None) -> None:
    """The key's own app cannot be overridden, and a referer's query and credentials are never kept."""
    assert app_of(holder(own), headers) == app


def test_a_session_in_the_body_wins_and_is_bounded() -> None:
    """The header serves surfaces whose body has no place for it."""
    assert session_of({b"x-session-id": b"h"}, "b") == "b"
    assert session_of({b"x-session-id": b"h" * 999}, None) == "h" * 256
    assert session_of({}, None) is None


@pytest.mark.parametrize("value", [b"", b"gen_1", b"gen_01M83VC4AKJ8YG0PBRE8YH9Z16\r\nx", b"chatcmpl-1"])
def test_a_replay_link_must_be_an_id_of_ours(value: bytes) -> None:
    """Anything else is ignored, so the record never points nowhere."""
    assert replay_of({b"x-counterfoil-replay-of": value}) is None
    assert replay_of({b"x-counterfoil-replay-of": b"gen_01M83VC4AKJ8YG0PBRE8YH9Z16"}) is not None
