"""What the log says beside an event."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from counterfoil.process.logs import FIELDS

SOURCE = Path(__file__).parents[3] / "src"
SCRIPT = """
import logging
from counterfoil.config.model import LogConfig
from counterfoil.process.logs import configure
configure(LogConfig(format="json"))
logging.getLogger("counterfoil.ledger").error("ledger_write_failed", extra={"reason": "FullError", "body": "a prompt"})
"""


def test_our_fields_are_written_and_no_others() -> None:
    """The reason of an event is in its line; what is not on the list is not."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    line = json.loads(done.stderr)
    assert (line["event"], line["reason"]) == ("ledger_write_failed", "FullError")
    assert "body" not in line


def test_every_field_we_log_is_on_the_list() -> None:
    """A field that a logger of ours adds is one that is written."""
    texts = [path.read_text() for path in SOURCE.rglob("*.py")]
    used = {
        name
        for text in texts
        for extra in re.findall(r"[ (]extra=\{(.*?)\}\)", text)
        for name in re.findall(r'"(\w+)":', extra)
    }
    assert used
    assert used <= set(FIELDS)
