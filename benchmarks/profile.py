"""Where the gateway's time goes: a sampling profile while it is under load, by py-spy or else by perf."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

from benchmarks.compare import running
from benchmarks.rounds import Bench
from benchmarks.scenarios import PEAK, STREAMS
from benchmarks.targets import SCRATCH, Counterfoil


def run(scenario_name: str, seconds: float) -> int:
    """Profile one scenario and print where the result is; 1 when neither tool is there."""
    scenario = replace(PEAK if scenario_name == "unary" else STREAMS, window_s=seconds + 1)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with Bench() as bench, running(Counterfoil(), bench.port) as target:
        bench.warm(target)
        made = _command(target.pids(), seconds, SCRATCH / f"profile-{scenario_name}")
        if made is None:
            sys.stdout.write("neither py-spy nor perf is installed\n")
            return 1
        command, output = made
        sampler = threading.Thread(target=subprocess.run, args=(command,), kwargs={"check": False})
        sampler.start()
        round_ = bench.run(target, scenario)
        sampler.join()
    sys.stdout.write(f"{round_.cpu_us_per_request:.1f} µs a request while sampled\n{output}\n")
    return 0


def _command(pids: list[int], seconds: float, output: Path) -> tuple[list[str], str] | None:
    places = [str(Path(sys.executable).parent), str(SCRATCH / "tools/bin"), os.environ.get("PATH", "")]
    py_spy = shutil.which("py-spy", path=os.pathsep.join(places))
    if py_spy:
        path = output.with_suffix(".txt")
        options = ["--format", "raw", "--subprocesses", "--rate", "400", "--duration", str(int(seconds))]
        return [py_spy, "record", "--pid", str(pids[0]), *options, "--output", str(path)], f"folded stacks: {path}"
    if shutil.which("perf"):
        path = output.with_suffix(".data")
        target = ",".join(map(str, pids))
        command = [
            "perf",
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-g",
            "-p",
            target,
            "-o",
            str(path),
            "sleep",
            str(seconds),
        ]
        return command, f"read with: perf report -i {path} --no-children"
    return None
