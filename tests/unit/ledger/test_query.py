"""Every question a reader can ask, over the derived tables, the tail behind them, and both."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest
from msgspec import UNSET

from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.query import Filter, LedgerReader
from counterfoil.ledger.settlement import Settlement
from counterfoil.record.charge import CostState
from counterfoil.record.links import judging
from emulators.control import START_MS, request_id, settlement
from emulators.ledgers import opened, settle_all

COUNT = 240


def _call(number: int) -> Settlement:
    """A call whose every field can be told from its number."""
    failed = number % 10 == 0
    return settlement(
        number,
        team=f"team-{number % 3}",
        request=None,
        app_id=None if number % 4 else "web",
        key_id=f"k{number % 2}",
        endpoint="/v1/responses" if number % 5 == 0 else "/v1/chat/completions",
        model_id=f"openai/m{number % 3}",
        provider="openai" if number % 3 else "anthropic",
        status_code=502 if failed else 200,
        error_code="upstream:timeout" if failed else None,
        error_message="x" if failed else None,
        stream=number % 2 == 0,
        byok=number % 7 == 0,
        native_response_id=f"native-{number % 50}",
        session_id=f"s{number % 6}" if number % 2 else None,
        end_user="ann" if number % 11 == 0 else None,
        replay_of=request_id(1) if number % 40 == 0 else None,
        judge_of=request_id(1) if number % 40 == 20 else UNSET,
        cost_nanos=number * 10,
        cost_state=CostState.PARTIAL if number % 9 == 0 else CostState.EXACT,
    )


@pytest.fixture(scope="module", params=["indexed", "tail", "both"])
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerReader]:
    """Give a reader of the same records, wholly, not at all, and half behind the derived tables."""
    folder = DataFolder.create(tmp_path_factory.mktemp("ledger") / "data")

    async def fill() -> None:
        async with opened(folder) as ledger:
            half = COUNT // 2 if request.param == "both" else 0
            await settle_all(ledger, [_call(number) for number in range(1, half + 1)])
        async with opened(folder) as ledger:
            if request.param != "indexed":
                ledger._writer._farewell = lambda: None
            await settle_all(ledger, [_call(number) for number in range(half + 1, COUNT + 1)])

    asyncio.run(fill())
    reading = LedgerReader(folder)
    behind = {"indexed": 0, "tail": COUNT, "both": COUNT // 2}[request.param]
    assert reading.stats()["unindexed"] == behind
    yield reading
    reading.close()


FILTERS = {
    "nothing": (Filter(), lambda n: n > 0),
    "team": (Filter(team_id="team-1"), lambda n: n % 3 == 1),
    "unknown team": (Filter(team_id="nobody"), lambda n: n < 0),
    "app": (Filter(app_id="web"), lambda n: n % 4 == 0),
    "key": (Filter(key_id="k1"), lambda n: n % 2 == 1),
    "endpoint": (Filter(endpoint="/v1/responses"), lambda n: n % 5 == 0),
    "model": (Filter(model_id="openai/m2"), lambda n: n % 3 == 2),
    "provider": (Filter(provider="anthropic", team_id="team-0"), lambda n: n % 3 == 0),
    "status": (Filter(status_code=502), lambda n: n % 10 == 0),
    "error": (Filter(error_code="upstream:timeout"), lambda n: n % 10 == 0),
    "success": (Filter(success=True, team_id="team-2"), lambda n: n % 10 and n % 3 == 2),
    "failure": (Filter(success=False), lambda n: n % 10 == 0),
    "stream": (Filter(stream=True), lambda n: n % 2 == 0),
    "unary": (Filter(stream=False), lambda n: n % 2 == 1),
    "byok": (Filter(byok=True), lambda n: n % 7 == 0),
    "session": (Filter(session_id="s3"), lambda n: n % 6 == 3),
    "session of a team": (Filter(session_id="s1", team_id="team-1"), lambda n: n % 6 == 1),
    "session of another team": (Filter(session_id="s1", team_id="team-2"), lambda n: n < 0),
    "end user": (Filter(end_user="ann"), lambda n: n % 11 == 0),
    "replays": (Filter(replay_of=request_id(1)), lambda n: n % 40 == 0),
    "judges of one": (Filter(replay_of=judging(request_id(1))), lambda n: n % 40 == 20),
    "reruns": (Filter(rerun=True), lambda n: n % 40 == 0),
    "no reruns": (Filter(rerun=False, team_id="team-1"), lambda n: n % 40 and n % 3 == 1),
    "judges": (Filter(judge=True, team_id="team-2"), lambda n: n % 40 == 20 and n % 3 == 2),
    "no judges": (Filter(judge=False), lambda n: n % 40 != 20),
    "neither": (Filter(judge=False, rerun=False), lambda n: n % 20),
    "since": (Filter(since_ms=START_MS + 200_000), lambda n: n >= 200),
    "until": (Filter(until_ms=START_MS + 30_000, team_id="team-0"), lambda n: n < 30 and n % 3 == 0),
    "between": (Filter(since_ms=START_MS + 50_000, until_ms=START_MS + 60_000), lambda n: 50 <= n < 60),
    "cost": (Filter(min_cost_nanos=500, max_cost_nanos=600), lambda n: 50 <= n <= 60 and n % 9),
    "many": (
        Filter(team_id="team-1", stream=True, success=True, since_ms=START_MS + 40_000, session_id=None),
        lambda n: n % 3 == 1 and n % 2 == 0 and n % 10 and n >= 40,
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters(reader: LedgerReader, name: str) -> None:
    """A filter gives exactly the records for which everything it asks holds, newest first, and their sums."""
    wanted, holds = FILTERS[name]
    expected = [number for number in range(COUNT, 0, -1) if holds(number)]
    page = reader.page(wanted, limit=1000)
    assert [stored.id for stored in page.records] == [request_id(number) for number in expected]
    assert page.next is None
    summary = reader.summary(wanted)
    assert (summary.records, summary.cost_nanos) == (len(expected), sum(number * 10 for number in expected))
    assert summary.successes == sum(number % 10 != 0 for number in expected)
    assert summary.unpriced == sum(number % 9 == 0 for number in expected)
    assert (summary.prompt_tokens, summary.completion_tokens) == (10 * len(expected), 5 * len(expected))


@pytest.mark.parametrize(
    "wanted", [Filter(), Filter(team_id="team-2"), Filter(session_id="s5"), Filter(byok=True)], ids=str
)
@pytest.mark.parametrize(
    "by", [["app"], ["model", "key"], ["day", "team"], ["hour", "error_code", "end_user"]], ids=str
)
def test_groups_add_up_to_the_whole(reader: LedgerReader, wanted: Filter, by: list[str]) -> None:
    """Every record is in one group, so counts and nanos of all groups are the whole's, which is the summary."""
    found = reader.summaries(wanted, by)
    assert found is not None
    whole, groups = found
    assert whole == reader.summary(wanted)
    for name in ("records", "successes", "prompt_tokens", "completion_tokens", "cost_nanos", "unpriced"):
        assert sum(getattr(group, name) for group in groups.values()) == getattr(whole, name)
    assert sum(group.byok.cost_nanos for group in groups.values()) == whole.byok.cost_nanos


def test_a_group_is_the_filter_of_its_values(reader: LedgerReader) -> None:
    """What a group says is what the same question says when it is asked for that group alone."""
    found = reader.summaries(Filter(), ["team", "model"])
    assert found is not None
    for (team, model), group in found[1].items():
        assert group == reader.summary(Filter(team_id=team, model_id=model))


def test_a_time_is_of_utc(reader: LedgerReader) -> None:
    """Days and hours are the admission's in UTC."""
    for name, said in (("month", "2026-09"), ("day", "2026-09-21"), ("hour", "2026-09-21T14:00Z")):
        found = reader.summaries(Filter(), [name])
        assert found is not None
        assert list(found[1]) == [(said,)]


def test_too_many_groups_are_no_answer(reader: LedgerReader) -> None:
    """Some of the groups would add up to something that is not the whole."""
    assert reader.summaries(Filter(), ["team"], limit=2) is None


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("wanted", [Filter(), Filter(team_id="team-2"), Filter(session_id="s5")], ids=str)
def test_pages_join(reader: LedgerReader, wanted: Filter, limit: int) -> None:
    """Page by page a list has every record once and none twice, whatever the size of the pages."""
    whole = [stored.id for stored in reader.page(wanted, limit=1000).records]
    joined: list[str] = []
    cursor = None
    while True:
        page = reader.page(wanted, cursor, limit)
        assert len(page.records) <= limit
        joined += [stored.id for stored in page.records]
        cursor = page.next
        if cursor is None:
            break
    assert joined == whole == [stored.id for stored in reader.each(wanted)]


def test_every_record_by_both_ids(reader: LedgerReader) -> None:
    """Each record is found by our id; a provider's id gives the newest record that has it, of the team that asks."""
    for number in range(1, COUNT + 1):
        team = f"team-{number % 3}"
        found = reader.find(team, request_id(number))
        assert found is not None
        assert (found.id, found.team_id, found.seq) == (request_id(number), team, number)
        assert reader.find(None, request_id(number)) == found
        assert reader.find(f"team-{(number + 1) % 3}", request_id(number)) is None
    for native in range(50):
        numbers = [number for number in range(1, COUNT + 1) if number % 50 == native]
        newest = reader.find(None, f"native-{native}")
        assert newest is not None
        assert newest.id == request_id(numbers[-1])
        for team in range(3):
            own = [number for number in numbers if number % 3 == team]
            found = reader.find(f"team-{team}", f"native-{native}")
            assert (found.id if found else None) == (request_id(own[-1]) if own else None)


@pytest.mark.parametrize(
    "any_id", ["", "gen_", "native-50", request_id(COUNT + 1), request_id(1).lower(), "\ud800", "a\0b", "%", "x" * 5000]
)
def test_no_such_id(reader: LedgerReader, any_id: str) -> None:
    """Anything that is no id of a record is not found, and harms nothing."""
    assert reader.find("team-1", any_id) is None
    assert reader.find(None, any_id) is None


def test_all_in_order_of_commit(reader: LedgerReader) -> None:
    """The whole ledger can be walked in the order of commit."""
    assert [stored.seq for stored in reader.all()] == list(range(1, COUNT + 1))


def test_threads_read_side_by_side(reader: LedgerReader) -> None:
    """A reader serves several threads at once, each through a connection of its own."""
    found: list[int] = []

    def read() -> None:
        found.append(sum(1 for _ in reader.each(Filter(team_id="team-1"))))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [COUNT // 3] * 4


def test_old_segments_are_searched(tmp_path: Path) -> None:
    """A provider's id is found however far back its record lies, and the newest first."""
    folder = DataFolder.create(tmp_path / "data")

    async def settle(number: int, native: str) -> None:
        async with opened(folder) as ledger:
            await ledger.settle(settlement(number, request=None, native_response_id=native))

    asyncio.run(settle(1, "old"))
    asyncio.run(settle(2, "same"))
    connection = database.open_writer(folder.ledger_db, "write")
    for table in ("generations", "by_value", "by_team", "by_time"):  # as if half a million records lay between
        connection.execute(f"UPDATE {table} SET seq = seq + 500000 WHERE seq = 2")
    connection.execute("UPDATE by_value SET segment = seq >> 16")
    connection.execute("UPDATE indexed SET seq = 500002")
    connection.close()
    asyncio.run(settle(3, "same"))
    reader = LedgerReader(folder)
    found = [reader.find("acme", native) for native in ("old", "same")]
    assert [each.id for each in found if each is not None] == [request_id(1), request_id(3)]
    reader.close()


def test_an_empty_folder(tmp_path: Path) -> None:
    """A folder whose gateway never ran is an empty ledger, not an error."""
    reader = LedgerReader(DataFolder.create(tmp_path / "data"))
    assert reader.find(None, request_id(1)) is None
    assert (reader.page(Filter()).records, reader.summary(Filter()).records) == ([], 0)
    assert reader.stats()["records"] == reader.stats()["open_intents"] == 0
    reader.close()


@pytest.mark.parametrize("ask", ["find", "page", "summary", "stats", "all"])
def test_an_unreadable_ledger(tmp_path: Path, ask: str) -> None:
    """A database that cannot be read is reported as that, never as an empty answer."""
    folder = DataFolder.create(tmp_path / "data")
    folder.ledger_db.write_bytes(b"this is no database" * 500)
    reader = LedgerReader(folder)
    questions = {
        "find": lambda: reader.find(None, request_id(1)),
        "page": lambda: reader.page(Filter()),
        "summary": lambda: reader.summary(Filter()),
        "stats": reader.stats,
        "all": lambda: list(reader.all()),
    }
    with pytest.raises(GatewayFault) as caught:
        questions[ask]()
    assert caught.value.code == "gateway:ledger_unavailable"
    reader.close()


@pytest.mark.parametrize("ask", ["find", "page", "all", "canonical"])
def test_a_damaged_record(tmp_path: Path, ask: str) -> None:
    """A record that cannot be unpacked is a ledger that cannot be read, however it is asked for."""
    folder = DataFolder.create(tmp_path / "data")

    async def fill() -> None:
        async with opened(folder) as ledger:
            await ledger.settle(settlement(1))

    asyncio.run(fill())
    with contextlib.closing(apsw.Connection(str(folder.ledger_db))) as connection:
        connection.execute("UPDATE generations SET record = x'ff00'")
    reader = LedgerReader(folder)
    questions = {
        "find": lambda: reader.find(None, request_id(1)),
        "page": lambda: reader.page(Filter()),
        "all": lambda: list(reader.all()),
        "canonical": lambda: list(reader.canonical(Filter())),
    }
    with pytest.raises(GatewayFault):
        questions[ask]()
    reader.close()


def test_reading_while_writing(tmp_path: Path) -> None:
    """Readers see every acknowledged record and never a half one, while commits and index passes go on."""
    folder = DataFolder.create(tmp_path / "data")
    reader = LedgerReader(folder)
    seen: list[int] = []

    async def fill() -> None:
        async with opened(folder) as ledger:
            for start in range(1, 3001, 300):
                await settle_all(ledger, [settlement(n, request=None) for n in range(start, start + 300)])
                seen.append(await asyncio.to_thread(lambda: sum(1 for _ in reader.each(Filter(team_id="acme")))))

    asyncio.run(fill())
    assert seen == list(range(300, 3001, 300))
    decoded = [msgspec.json.decode(stored.data)["request_id"] for stored in reader.all()]
    assert sorted(decoded) == [request_id(number) for number in range(1, 3001)]
    reader.close()
