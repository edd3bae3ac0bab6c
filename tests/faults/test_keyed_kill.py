"""``kill -9`` while clients repeat each other's idempotency keys: one call for each key, and one answer for ever.

Every key is used by three clients at once and, after the kill, by a fourth; a stream as often as a unary call. The
provider gives every call another text, so that two answers are the same only when they are one.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from emulators.gateway import Gateway
from emulators.raw import RawClient, Reply, post
from emulators.scripted import ScriptedUpstream, Seen, Step, Wait, answer, chat_answer, chat_frames, chunked
from emulators.waiting import wait_until
from faults import checker
from faults.test_kill import children, some_calls, two_serve

KILLS = int(os.environ.get("COUNTERFOIL_TEST_KILLS", "3"))
KILLS_MANY = int(os.environ.get("COUNTERFOIL_TEST_KILLS", "100"))
KILLS_ON_ONE_FOLDER = 25
CLIENTS_OF_A_KEY = 3
THREADS = 9


class Whole(NamedTuple):
    """An answer that came whole."""

    mark: str
    reply: Reply


class Keyed:
    """What the clients sent and got, by idempotency key."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.gateway = gateway
        self.api_key = gateway.key()
        self.name = name
        self.marks: set[str] = set()
        self.answers: defaultdict[str, list[Whole]] = defaultdict(list)
        self._tickets = itertools.count()

    def call(self, key: str, mark: str) -> bool:
        """Make the call that ``key`` stands for; whether its answer came whole."""
        stream = int(key.rpartition("-")[2]) % 2 == 1
        self.marks.add(mark)
        try:
            with RawClient(self.gateway.port) as client:
                body = checker.body_of(key, stream=stream)
                client.send(post(checker.CHAT, body, self.api_key, idempotency_key=key, x_app_id=mark))
                reply = client.reply()
        except (OSError, AssertionError, ValueError):
            return False
        if stream and reply.status == 200 and not reply.body.endswith(b"data: [DONE]\n\n"):
            return False
        assert stream or json.loads(reply.body)
        self.answers[key].append(Whole(mark, reply))
        return True

    def keep_calling(self, stop: threading.Event) -> None:
        """One client after the other, :data:`CLIENTS_OF_A_KEY` for each key, until told to stop or hung up on."""
        while not stop.is_set():
            number = next(self._tickets)
            key = f"{self.name}-{number // CLIENTS_OF_A_KEY}"
            if not self.call(key, f"{key}-by-{number % CLIENTS_OF_A_KEY}"):
                return

    @property
    def keys(self) -> list[str]:
        """Every key that was used, in that order."""
        return sorted({mark.partition("-by-")[0] for mark in self.marks}, key=lambda key: int(key.rpartition("-")[2]))


def paced() -> Callable[[Seen], list[Step]]:
    """A provider that never says the same twice, at its own pace."""
    numbers = itertools.count()

    def script(seen: Seen) -> list[Step]:
        pace, text = random.random() * 0.02, f"answer {next(numbers)} to {seen.json['user']}"
        if not seen.json.get("stream"):
            return [Wait(pace), *answer(chat_answer(text))]
        head, *frames = chunked(*chat_frames(*text.split()))
        return [Wait(pace), head, *itertools.chain.from_iterable((frame, Wait(pace / 4)) for frame in frames)]

    return script


def interrupt(keyed: Keyed, upstream: ScriptedUpstream, kill: Callable[[], None]) -> None:
    """Keep keyed calls in flight until ``kill`` was called, some calls later."""
    stop = threading.Event()
    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(keyed.keep_calling, stop) for _ in range(THREADS)]
        try:
            some_calls(upstream, random.Random())
            kill()
        finally:
            stop.set()
        for one in running:
            one.result(30)


def ask_again(keyed: Keyed, keys: list[str], round_number: int) -> None:
    """Each key once more: now all of them are answered."""
    with ThreadPoolExecutor(THREADS) as pool:
        answered = list(pool.map(lambda key: keyed.call(key, f"{key}-by-again-{round_number}"), keys))
    assert all(answered)


def check(keyed: Keyed, upstream: ScriptedUpstream, *, verify: bool) -> dict[str, int]:
    """Hold the gateway to what keys promise; give how many calls were interrupted, made anew, and repeated."""
    gateway = keyed.gateway
    records = checker.records_of(gateway)
    by_id = {record["request_id"]: record for record in records}
    assert len({record["app_id"] for record in records}) == len(records), "two records of one call"
    assert {record["app_id"] for record in records} <= keyed.marks, "an invented record"
    reached: defaultdict[str, int] = defaultdict(int)
    for seen in upstream.seen:
        reached[seen.json["user"]] += 1
    by_key: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in sorted(records, key=lambda each: each["created_at"]):
        by_key[record["app_id"].partition("-by-")[0]].append(record)
    counts: defaultdict[str, int] = defaultdict(int)
    for key in keyed.keys:
        bought = check_bought(by_key[key], reached[key])
        check_answers(keyed.answers[key], by_id, bought)
        counts["anew"] += said(bought, "retry_of") is not None
        counts["repeated"] += sum(said(record, "repeat_of") is not None for record in by_key[key])
    counts["interrupted"] = sum(record["error_code"] == "gateway:interrupted" for record in records)
    checker.check_chains(records)
    checker.check_account(gateway, len(records))
    checker.check_folder(gateway, len(records))
    if verify:
        done = gateway.command("ledger", "verify", "--json", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return counts


def said(record: dict[str, Any], name: str) -> str | None:
    """What a record says of its key; that of a call whose process was killed says nothing."""
    return record["idempotency"][name] if "idempotency" in record else None


def check_bought(records: list[dict[str, Any]], reached: int) -> dict[str, Any]:
    """Of one key: one call was bought and answered; any before it was interrupted, and the next one names it."""
    bought = [record for record in records if record["success"] and said(record, "repeat_of") is None]
    assert len(bought) == 1, "a key that was answered was paid for twice, or not at all"
    interrupted = [record for record in records if record["error_code"] == "gateway:interrupted"]
    sent = {record["request_id"] for record in interrupted if record["provider"] != "none"}  # the others only waited
    assert 1 <= reached <= 1 + len(sent), "the provider saw a call that has no record"
    if reached > 1:
        assert said(bought[0], "retry_of") in sent, "a second payment that nobody was told of"
    return bought[0]


def check_answers(answers: list[Whole], records: dict[str, dict[str, Any]], bought: dict[str, Any]) -> None:
    """Everybody who got a whole answer got the same one, and has a record that says so.

    Who waited in a worker that lived for one in a worker that died got that call's error.
    """
    served = [whole for whole in answers if whole.reply.status == 200]
    assert len({whole.reply.body for whole in served}) == 1
    for mark, reply in answers:
        record = records[reply.generation_id]
        assert (record["app_id"], record["status_code"]) == (mark, reply.status)
        if reply.status != 200:
            assert (reply.status, record["error_code"]) == (502, "gateway:interrupted")
            continue
        repeat_of = said(record, "repeat_of")
        assert repeat_of == (None if record is bought else bought["request_id"])
        assert reply.headers.get("x-counterfoil-repeat-of") == repeat_of


def series(gateway: Gateway, upstream: ScriptedUpstream, kills: int, workers: int, name: str) -> dict[str, int]:
    """Kill ``kills`` times; check after each; at last restart in peace and ask for everything once more."""
    keyed, counts = Keyed(gateway, name), {}
    known: set[str] = set()
    for number in range(1, kills + 1):
        interrupt(keyed, upstream, lambda number=number: kill_some(gateway, number, workers))
        if workers == 1:
            gateway.start()
        else:
            wait_until(lambda: two_serve(gateway))
        ask_again(keyed, [key for key in keyed.keys if key not in known], number)
        known.update(keyed.keys)
        counts = check(keyed, upstream, verify=number == kills)
    calls = len(upstream.seen)
    assert gateway.stop() == 0
    gateway.start()
    ask_again(keyed, keyed.keys, 0)
    assert len(upstream.seen) == calls, "an answer that was there was bought again"
    check(keyed, upstream, verify=True)
    print(f"{kills} kills, {len(keyed.keys)} keys, {len(keyed.marks)} requests: {dict(counts)}")
    return counts


def kill_some(gateway: Gateway, number: int, workers: int) -> None:
    """Kill the only process, or one worker of two, or every third time both."""
    if workers == 1:
        gateway.process.kill()
        return
    for victim in children(gateway.process.pid)[: 2 if number % 3 == 0 else 1]:
        os.kill(victim, signal.SIGKILL)


@pytest.fixture
def keyed_upstream(upstream: ScriptedUpstream) -> ScriptedUpstream:
    """Give a provider whose answers all differ."""
    upstream.script = paced()
    return upstream


def test_a_key_survives_the_process(gateway: Gateway, keyed_upstream: ScriptedUpstream) -> None:
    """Killed and restarted on its folder, the gateway gives every key the answer that somebody already has."""
    counts = series(gateway, keyed_upstream, min(KILLS, KILLS_ON_ONE_FOLDER), 1, "k")
    assert counts["interrupted"] > 0
    assert counts["repeated"] > 0


@pytest.mark.faults
@pytest.mark.timeout(300 + 15 * KILLS_MANY)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_key_survives_many_kills(
    start_gateway: Any, local_config: dict[str, Any], keyed_upstream: ScriptedUpstream, workers: int
) -> None:
    """The long form, also of one worker of two or of both: 100 kills, or as many as COUNTERFOIL_TEST_KILLS says."""
    interrupted = 0
    for left in range(KILLS_MANY, 0, -KILLS_ON_ONE_FOLDER):
        gateway = start_gateway(local_config, workers=workers)
        keyed_upstream.seen.clear()
        kills = min(left, KILLS_ON_ONE_FOLDER)
        interrupted += series(gateway, keyed_upstream, kills, workers, f"w{workers}f{left}")["interrupted"]
        gateway.stop()
    assert interrupted > 0
