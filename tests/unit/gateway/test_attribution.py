"""Who a call is for, from its key and headers."""

from __future__ import annotations

import pytest

from counterfoil.gateway.attribution import app_of, link_of, session_of


@pytest.mark.parametrize(
    ("headers", "app"),
    [
        ({b"x-app-id": b"batch-jobs", b"x-title": b"T"}, "batch-jobs"),
        ({b"http-referer": b"https://user:pw@shop.example/chat/?q=secret#x"}, "shop.example/chat"),
        ({b"referer": b"https://shop.example/"}, "shop.example"),
        ({b"x-title": "Möbel & Co.".encode()}, "möbel-co"),
        ({b"x-title": "日本語".encode()}, "日本語"),
        ({b"http-referer": b"shop.example/chat?q=secret"}, "shop.example/chat"),
        ({b"http-referer": b"my-app"}, "my-app"),
        ({b"http-referer": b"about:blank", b"x-title": b"My Chat"}, "my-chat"),
        ({b"http-referer": b"file:///home/me", b"x-title": b"My Chat"}, "my-chat"),
        ({b"x-app-id": b" ", b"x-title": b"My Chat"}, "my-chat"),
        ({b"x-app-id": b"a\x01b"}, "ab"),
        ({b"referer": b"http://[::1"}, None),
        ({}, None),
    ],
    ids=[
        "header",
        "referer",
        "bare-host",
        "title",
        "script",
        "no-scheme",
        "name",
        "blank",
        "file",
        "empty",
        "control",
        "damaged",
        "none",
    ],
)
def test_the_headers_name_the_app(headers: dict[bytes, bytes], app: str | None) -> None:
    """A referer's query and credentials are never kept; a header that says nothing leaves the word to the next."""
    assert app_of(headers) == app


def test_a_session_is_bounded() -> None:
    """The header serves surfaces whose body has no place for it."""
    assert session_of({b"x-session-id": b"h" * 999}) == "h" * 256
    assert session_of({}) is None


@pytest.mark.parametrize("value", [b"", b"gen_1", b"gen_01M83VC4AKJ8YG0PBRE8YH9Z16\r\nx", b"chatcmpl-1"])
def test_a_replay_link_must_be_an_id_of_ours(value: bytes) -> None:
    """Anything else is ignored, so the record never points nowhere."""
    assert link_of({b"x-counterfoil-replay-of": value}) is None
    assert link_of({b"x-counterfoil-judge-of": value}) is None
    good = b"gen_01M83VC4AKJ8YG0PBRE8YH9Z16"
    assert link_of({b"x-counterfoil-replay-of": good, b"x-counterfoil-judge-of": good}) == good.decode()
    assert link_of({b"x-counterfoil-replay-of": value, b"x-counterfoil-judge-of": good}) == f"judge:{good.decode()}"
