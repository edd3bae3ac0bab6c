"""What the log says beside an event."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta
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


LINES = """
import logging, sys
from counterfoil.config.model import LogConfig
from counterfoil.process.logs import configure
configure(LogConfig(format=sys.argv[1]))
logging.getLogger("counterfoil.supervisor").error("worker_died", extra={"worker": 1, "status": -9})
asked = ("peer", "GET", "/v1/generations?id=x&key=y", "1.1", 200)
logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *asked)
try:
    {}["nothing"]
except KeyError:
    logging.getLogger("counterfoil").exception("It broke.")
"""


def _lines(form: str) -> str:
    done = subprocess.run([sys.executable, "-c", LINES, form], capture_output=True, text=True, timeout=60, check=True)
    return done.stderr


def test_a_line_for_machines() -> None:
    """An event, its level, who says so and when in UTC; a traceback stays inside its line; no query of a client."""
    died, asked, broke = map(json.loads, _lines("json").splitlines())
    when = datetime.fromisoformat(died.pop("timestamp"))
    assert when.utcoffset() == timedelta(0)
    assert died == {
        "event": "worker_died", "level": "error", "logger": "counterfoil.supervisor", "worker": 1, "status": -9
    }  # fmt: skip
    assert asked["event"] == 'peer - "GET /v1/generations HTTP/1.1" 200'
    assert broke["exception"].startswith("Traceback")
    assert broke["exception"].endswith("KeyError: 'nothing'")


def test_a_line_for_people() -> None:
    """The same on a terminal, the traceback below its line."""
    died, asked, broke, *trace = _lines("console").splitlines()
    assert died.endswith("Z [error] worker_died [counterfoil.supervisor] status=-9 worker=1")
    assert asked.endswith('[info] peer - "GET /v1/generations HTTP/1.1" 200 [uvicorn.access]')
    assert broke.endswith("[error] It broke. [counterfoil]")
    assert (trace[0], trace[-1]) == ("Traceback (most recent call last):", "KeyError: 'nothing'")


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
