"""Each fuzz target for a bounded time, guided by coverage from the stored corpus on."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

SECONDS = int(os.environ.get("COUNTERFOIL_TEST_FUZZ_SECONDS", "20"))
"""For each target."""

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(SECONDS + 300),
    pytest.mark.skipif(
        importlib.util.find_spec("atheris") is None, reason="atheris is not installed (make faults installs it)"
    ),
]


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_it(name: str, tmp_path: Path, repository: Path) -> None:
    """An input that does is shown in base64: it belongs into the corpus, with the fix."""
    new = tmp_path / "new"
    new.mkdir()
    paths = os.pathsep.join([str(repository / "src"), str(repository / "tests")])
    command = [sys.executable, "-m", "fuzz.run", name, str(SECONDS), str(new)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        timeout=SECONDS + 280,
        check=False,
    )
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, said[-4000:]
    runs = re.search(r"number_of_executed_units: (\d+)", said)
    assert runs is not None
    print(f"{name}: {runs[1]} inputs, {len(list(new.iterdir()))} of them reached new code")
