"""The text of a key: what it holds, and what is told from it without asking anybody."""

from __future__ import annotations

import math
import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.tenancy import keys
from counterfoil.tenancy.keys import KeyKind, KeyReason, ParsedKey

KID = "4fTq0ZbKx81M"
KEY = keys.compose(KeyKind.INFERENCE, KID, os.urandom)


@given(st.sampled_from(KeyKind), st.binary(min_size=64, max_size=64))
def test_what_is_made_is_read(kind: KeyKind, seed: bytes) -> None:
    """Every key that is made parses to its kind and kid, and has one length."""
    text = keys.compose(kind, KID, lambda n: (seed + os.urandom(n))[:n])
    assert keys.parse(text) == ParsedKey(kind, KID)
    assert len(text) == keys.KEY_LETTERS
    assert text.startswith({"inference": "cf_sk_", "management": "cf_mk_"}[kind] + KID + "_")


def test_a_secret_holds_enough_chance() -> None:
    """A secret has at least 160 bits of entropy; the checksum is not counted."""
    assert keys.SECRET_LETTERS * math.log2(len(keys.ALPHABET)) >= 160


@given(st.integers(0, keys.KEY_LETTERS - 1), st.sampled_from(keys.ALPHABET))
def test_one_wrong_letter_is_found(place: int, letter: str) -> None:
    """A key with any one letter changed is never a good key."""
    wrong = KEY[:place] + letter + KEY[place + 1 :]
    if wrong != KEY:
        assert keys.parse(wrong) in (KeyReason.BAD_CHECKSUM, KeyReason.MALFORMED) or wrong[3:5] != KEY[3:5]


@given(st.integers(len("cf_sk_") + keys.KID_LETTERS + 1, keys.KEY_LETTERS - 2))
def test_two_letters_swapped_are_found(place: int) -> None:
    """The usual typing mistake never gives a good key."""
    wrong = KEY[:place] + KEY[place + 1] + KEY[place] + KEY[place + 2 :]
    assert wrong == KEY or keys.parse(wrong) is KeyReason.BAD_CHECKSUM


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", KeyReason.MISSING, id="empty"),
        pytest.param(KEY[:-1], KeyReason.MALFORMED, id="cut"),
        pytest.param(KEY + "x", KeyReason.MALFORMED, id="longer"),
        pytest.param(KEY + "\n", KeyReason.MALFORMED, id="line break"),
        pytest.param(" " + KEY, KeyReason.MALFORMED, id="space"),
        pytest.param("sk-proj-abc", KeyReason.MALFORMED, id="another provider's"),
        pytest.param(KEY.replace("cf_sk_", "cf_xk_"), KeyReason.MALFORMED, id="unknown kind"),
        pytest.param(KEY.replace("cf_sk_", "CF_SK_"), KeyReason.MALFORMED, id="other case"),
        pytest.param("cf_sk_" + "é" * 53, KeyReason.MALFORMED, id="not ASCII"),
        pytest.param("\ud800" * 10, KeyReason.MALFORMED, id="surrogates"),
        pytest.param(KEY.replace("cf_sk_", "cf_mk_"), KeyReason.BAD_CHECKSUM, id="made into the other kind"),
        pytest.param(KEY[:-6] + "000000", KeyReason.BAD_CHECKSUM, id="no checksum"),
    ],
)
def test_what_cannot_be_a_key_is_told_offline(text: str, reason: KeyReason) -> None:
    """The reason is told from the text alone."""
    assert keys.parse(text) is reason


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever is sent, the parser answers."""
    assert isinstance(keys.parse(text), ParsedKey | KeyReason)


def test_letters_are_drawn_evenly() -> None:
    """No letter is likelier: of all 256 bytes, 248 are used, four for each letter."""
    every = bytes(range(256))
    drawn = Counter(keys.letters(248, lambda _: every))
    assert set(drawn.values()) == {4}
    assert len(drawn) == 62


def test_the_checksum_is_the_published_one() -> None:
    """CRC-32 in base 62, six letters: what a scanner outside computes."""
    assert keys.checksum("123456789") == _base62(0xCBF43926)


def _base62(value: int) -> str:
    text = ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        text = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[digit] + text
    return text


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        pytest.param({b"authorization": b"Bearer k1"}, "k1", id="bearer"),
        pytest.param({b"authorization": b"bearer  k1 "}, "k1", id="bearer in lower case, spaces"),
        pytest.param({b"x-api-key": b"k2"}, "k2", id="Anthropic"),
        pytest.param({b"x-goog-api-key": b"k3"}, "k3", id="Google"),
        pytest.param({b"api-key": b"k4"}, "k4", id="Azure"),
        pytest.param({b"authorization": b"Bearer k1", b"x-api-key": b"k2"}, "k1", id="bearer first"),
        pytest.param({b"authorization": b"Basic abc", b"x-api-key": b"k2"}, "k2", id="another scheme is passed over"),
        pytest.param({b"x-api-key": b"", b"api-key": b"k4"}, "k4", id="empty is passed over"),
        pytest.param({b"authorization": b"k1"}, "", id="no scheme"),
        pytest.param({}, "", id="none"),
        pytest.param({b"x-api-key": b"\xff"}, "ÿ", id="not ASCII"),
    ],
)
def test_the_key_is_found_where_each_sdk_puts_it(headers: dict[bytes, bytes], found: str) -> None:
    """Four header forms, in one order."""
    assert keys.from_headers(headers) == found
