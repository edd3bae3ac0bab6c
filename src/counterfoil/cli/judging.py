"""Judges as the command line names them, and the bench where Python functions judge in this process.

A function gets a :class:`Case` and gives a boolean, a score between 0 and 1 (passed from 0.5 on), or None for no
verdict. It is imported from the working folder or anywhere on ``PYTHONPATH``, by whoever started the command and with
their rights alone.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from counterfoil.cli import output
from counterfoil.cli.remote import Remote
from counterfoil.errors import ConfigError
from counterfoil.replay.text import ToolCall, read

PAGE: Final = 500
PASS_AT: Final = 0.5


class Case(Struct, frozen=True):
    """One answer to judge: what was asked, what the original said, and what the rerun said."""

    request: Any
    original: str
    answer: str
    tool_calls: tuple[ToolCall, ...]
    result: dict[str, Any]


class Judge(NamedTuple):
    """A judge as the run knows it; ``function`` is there when it judges in this process."""

    asked: dict[str, Any]
    function: Callable[[Case], Any] | None = None


def parsed(text: str) -> Judge:
    """The judge that ``text`` names. Raises :class:`ConfigError`."""
    kind, mark, rest = text.partition(":")
    match kind:
        case "exact":
            return Judge({"type": "exact"})
        case "regex" | "not" if mark:
            return Judge({"type": "regex", "name": text[:128], "pattern": rest, "absent": kind == "not"})
        case "schema" if rest.startswith("@"):
            return Judge({"type": "json_schema", "name": Path(rest[1:]).name[:128], "schema": _schema(Path(rest[1:]))})
        case "model" if rest:
            return Judge({"type": "model", "name": rest[:128], "model": rest})
        case _ if mark and rest:
            return Judge({"type": "external", "name": text[:128]}, _function(kind, rest))
        case _:
            raise ConfigError(f"{text!r} is no judge; write exact, regex:…, schema:@FILE, model:… or MODULE:FUNCTION.")


class Bench:
    """Judges what a run has finished, each item once for each judge, and posts the verdicts."""

    def __init__(self, remote: Remote, path: str, judges: list[Judge]) -> None:
        self._remote = remote
        self._path = path
        self._judges = judges
        self._after = 0

    def judge(self) -> None:
        """Take up whatever has been finished since."""
        while rows := self._news():
            verdicts = [verdict for row in rows for verdict in self._verdicts(row)]
            if verdicts:
                self._remote.call("POST", f"{self._path}/verdicts", None, {"verdicts": verdicts})

    def _news(self) -> list[dict[str, Any]]:
        page = self._remote.get(f"{self._path}/results", {"after": self._after, "limit": PAGE})
        self._after = page["last"] or self._after
        return page["data"]

    def _verdicts(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        judged = {verdict["judge"] for verdict in row["verdicts"]}
        waiting = [one for one in self._judges if one.asked["name"] not in judged]
        if not waiting or row["state"] != "done":
            return []
        case = self._case(row)
        if case is None:
            return []
        return [_verdict(one, case, row) for one in waiting]

    def _case(self, row: dict[str, Any]) -> Case | None:
        original, rerun = self._content(row["a"]), self._content(row["b"])
        if original is None or rerun is None:
            return None
        said = read(_bytes(rerun["response"]), rerun["response"]["content_type"])
        before = read(_bytes(original["response"]), original["response"]["content_type"])
        try:
            request = msgspec.json.decode(_bytes(original["request"]))
        except msgspec.DecodeError:
            request = None
        return Case(request, before.text, said.text, said.tool_calls, row)

    def _content(self, side: dict[str, Any]) -> dict[str, Any] | None:
        answer = self._remote.send("GET", f"/v1/generations/{output.in_path(side['request_id'])}/content")
        return msgspec.json.decode(answer.body) if answer.status == 200 else None


def _verdict(judge: Judge, case: Case, row: dict[str, Any]) -> dict[str, Any]:
    found = judge.function(case) if judge.function is not None else None
    score = float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
    passed = found if isinstance(found, bool) else None if score is None else score >= PASS_AT
    place = {"item": row["item"], "target": row["target"], "judge": judge.asked["name"]}
    return {**place, "passed": passed, "score": score}


def _function(module: str, name: str) -> Callable[[Case], Any]:
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # as `python -m` does
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The judge {module}:{name} cannot be loaded: {error}.") from error
    if not callable(found):
        raise ConfigError(f"{module}:{name} is no function.")
    return found


def _schema(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} is no JSON that can be read: {error}") from error


def _bytes(part: dict[str, Any]) -> bytes:
    if part["encoding"] == "base64":
        return msgspec.convert(part["body"], bytes)
    return part["body"].encode()
