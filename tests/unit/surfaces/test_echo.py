"""What a provider's error repeats of the request does not get into a record; what makes sense of it does."""

from __future__ import annotations

import json

import pytest

from counterfoil.surfaces import echo
from counterfoil.surfaces.echo import BODY_BYTES_MAX, without_echo

PROMPT = "Dear Dr. Quagga, my number is 555-0199.\nPlease  tell me about zebras\u2003and “quokkas” in Łódź."
BODY = json.dumps(
    {
        "model": "acme/large-4.1",
        "messages": [{"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}],
        "metadata": {"ticket": "CANARY-7"},
        "tool_choice": "required",
    }
).encode()


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        (f"Invalid value: '{' '.join(PROMPT.split())}'", "Invalid value: '[redacted].'"),
        ("messages[0]: 'Dear Dr. Quagga, my number' is no", "messages[0]: '[redacted]' is no"),
        ("tell me about zebras is not allowed", "[redacted] is not allowed"),
        ("bad number 555-0199", "bad number [redacted]"),
        ("bad value CANARY-7.", "bad value [redacted]."),
        ("text of Łódź., is bad", "text of Łódź., is bad"),
        ("about zebras and “quokkas” in Łódź", "[redacted]"),
        ("Unsupported word 'number' and `zebras and`", "Unsupported word 'number' and `[redacted]`"),
        ("The model acme/large-4.1 does not exist", "The model acme/large-4.1 does not exist"),
        ("Invalid type 'input_text' in messages[0].content", "Invalid type 'input_text' in messages[0].content"),
        ("Please reduce the length of the messages.", "Please reduce the length of the messages."),
        ("Incorrect API key provided: [redacted]", "Incorrect API key provided: [redacted]"),
    ],
    ids=["all", "part", "run", "number", "value", "word", "script", "everyday", "model", "type", "own", "redacted"],
)
def test_what_stands_in_the_request_is_taken_out(message: str, kept: str) -> None:
    """Texts of the request go; keys, the model's name and everyday words stay."""
    assert without_echo(message, BODY) == kept


def test_a_form_and_what_is_no_json_are_looked_through_too() -> None:
    """The prompt of an image edit stands in a form."""
    form = b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na cat named Ziggurat\r\n--B--\xff'
    assert without_echo("Rejected: 'a cat named Ziggurat'", form) == "Rejected: '[redacted]'"


def test_of_a_message_too_long_to_look_for_the_rest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking is bounded, and what was not looked for is not kept."""
    monkeypatch.setattr(echo, "WORK_CHARS_MAX", 3 * (len(echo._asked(BODY)) + 1))
    assert without_echo("Please reduce what you wrote about zebras.", BODY) == "Please reduce [redacted]"


def test_of_a_request_too_large_to_look_through_no_message_is_kept() -> None:
    """The code and the status still say what happened."""
    assert without_echo("bad", b'{"input":"%b"}' % (b"a" * BODY_BYTES_MAX)) is None
    assert without_echo(None, BODY) is None
    assert without_echo("", BODY) == ""
