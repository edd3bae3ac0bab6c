"""Erasing what was captured, by whoever may, and the audit that says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from counterfoil.cli import main
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.query import Filter, LedgerReader
from counterfoil.record.record import CapturePolicy
from emulators.control import ControlPlane, request_id, serving, settlement, write

RECORDS = 6


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """Six records of one team, three of them of ann, one of these without bodies; and one of another team."""
    folder = DataFolder.create(tmp_path / "data")
    ann = {number: {"end_user": "ann"} for number in (1, 3, 5)}
    ann[5] |= {"policy": CapturePolicy.METADATA, "request": None}
    records = [settlement(number, **ann.get(number, {})) for number in range(1, RECORDS + 1)]
    write(folder, [*records, settlement(9, team="other", end_user="ann")])
    with serving(folder) as running:
        yield running


@pytest.fixture(params=["here", "over HTTP"])
def where(request: pytest.FixtureRequest, plane: ControlPlane) -> tuple[list[str], str]:
    """Give the options that name the ledger, and who is then said to have erased."""
    plane.admin.create_team("acme")
    key = plane.admin.create_management_key(("generations:read", "generations:erase"), team_id="acme")
    if request.param == "here":
        return ["--data", str(plane.folder.root), "--team", "acme"], "operator"
    return ["--url", plane.url, "--key", key.key], key.info.key_id


def stored(plane: ControlPlane) -> set[str]:
    """Give the records that still have bodies."""
    reader = LedgerReader(plane.folder)
    try:
        return {one.id for one in reader.all() if one.capture_state == "stored"}
    finally:
        reader.close()


def test_a_person_is_erased_and_the_audit_says_by_whom(
    plane: ControlPlane, where: tuple[list[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What a filter finds in the team goes, nothing else does, and each erasure has its line and its signed reason."""
    options, actor = where
    before = stored(plane)
    assert main.run(["generations", "erase", "--end-user", "ann", *options]) == 1
    assert "2 of 3 generations" in capsys.readouterr().err
    assert stored(plane) == before

    assert main.run(["generations", "erase", "--end-user", "ann", "--yes", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "generations": 3, "erased": 2}
    assert before - stored(plane) == {request_id(1), request_id(3)}
    lines = [
        (one.actor, one.team_id, one.subject) for one in plane.admin.list_changes() if one.action == "bodies.erase"
    ]
    assert lines == [(actor, "acme", request_id(1)), (actor, "acme", request_id(3))]
    with database.open_reader(plane.folder.ledger_db) as connection:
        reasons = {row[0] for row in connection.execute("SELECT reason FROM erasures")}
    assert len(reasons) == 1
    assert actor in reasons.pop()
    assert main.run(["ledger", "verify", "--data", str(plane.folder.root)]) == 0


def test_what_was_erased_does_not_pass_for_expired(plane: ControlPlane) -> None:
    """Where a bulk run chooses, by the ledger's columns alone, the two are told apart as they are in the record."""
    assert main.run(["generations", "erase", request_id(3), "--yes", "--data", str(plane.folder.root)]) == 0
    reader = LedgerReader(plane.folder)
    try:
        found = [one.capture_state.value for one in reader.identities(Filter(team_id="acme", end_user="ann"), 10)]
    finally:
        reader.close()
    assert found == ["stored", "erased", "not_captured"]


def test_what_is_not_there_and_everything_are_refused(plane: ControlPlane, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown id erases none of the others; nothing named is not everything."""
    here, before = ["--data", str(plane.folder.root)], stored(plane)
    for arguments in ([request_id(1), request_id(400)], [], [request_id(1), "--end-user", "ann"]):
        assert main.run(["generations", "erase", *arguments, "--yes", *here]) == 1
        assert capsys.readouterr().err.startswith("counterfoil: ")
    assert stored(plane) == before


def test_the_audit_is_read_to_its_beginning(plane: ControlPlane) -> None:
    """Page by page, each line once, whoever asks."""
    for number in range(7):
        plane.admin.create_team(f"team-{number}")
    key = plane.admin.create_management_key(("teams:read",)).key
    seen: list[int] = []
    before = ""
    while True:
        page = [one["number"] for one in plane.get(f"/v1/changes?limit=3{before}", key).json["data"]]
        if not page:
            break
        seen += page
        before = f"&before={page[-1]}"
    assert seen == [one.number for one in plane.admin.list_changes()]
    assert len(seen) == 8
