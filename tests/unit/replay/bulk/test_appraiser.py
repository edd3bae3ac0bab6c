"""Comparison and checks, in a child of their own."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from counterfoil.record import codec
from counterfoil.record.charge import CostState
from counterfoil.record.record import CaptureInfo, CapturePolicy, CaptureState, Record
from counterfoil.replay.bulk.appraisal import Body, Task, appraise
from counterfoil.replay.bulk.appraiser import Appraiser
from counterfoil.replay.bulk.asked import Exact, Pattern, Schema
from emulators.waiting import PATIENCE_S

KEPT = CaptureInfo(policy=CapturePolicy.FULL, state=CaptureState.STORED)
RECORD = Record(
    created_at="2026-11-02T10:00:00.000Z", request_id="gen_01KC2D0J5G4Q9W7T3M8XN6PVRB", team_id="acme", app_id=None,
    key_id="k", endpoint="/v1/chat/completions", model_id="openai/gpt-4o", provider="openai", native_response_id=None,
    stream=False, byok=False, status_code=200, success=True, error_code=None, error_message=None, latency_ms=1.0,
    generation_ms=2.0, throughput=None, cost_nanos=7, cost_state=CostState.EXACT, finish_reason="stop",
)  # fmt: skip
FAILED = msgspec.structs.replace(RECORD, success=False, status_code=502, error_code="upstream:error")
CHECKS = (Exact(), Exact("loosely", ignore_space=True), Pattern("^Hello"), Pattern("HELLO", "calm", absent=True))


def body(text: str) -> Body:
    """Give a chat completion that says ``text``."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return Body(msgspec.json.encode({"choices": choices}), "application/json")


def task(a: str, b: str, *checks: object, failed: bool = False) -> Task:
    """Give two answers to compare."""
    other = FAILED if failed else RECORD
    return Task(codec.encode(RECORD, KEPT), codec.encode(other, KEPT), body(a), body(b), checks)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("a", "b", "passed"),
    [
        ("Hello.", "Hello.", [True, True, True, True]),
        ("Hello.", " Hello.\n", [False, True, False, True]),
        ("Hello.", "HELLO", [False, False, False, False]),
    ],
    ids=["same", "spaces", "loud"],
)
def test_checks(a: str, b: str, passed: list[bool]) -> None:
    """Each check says whether the answer passes."""
    assert [verdict.passed for verdict in appraise(task(a, b, *CHECKS)).verdicts] == passed


@pytest.mark.parametrize(
    ("said", "passed", "reason"),
    [('{"n": 1}', True, None), ('{"n": "1"}', False, "/n type"), ("n is 1", False, "no JSON")],
    ids=["fits", "does not", "no JSON"],
)
def test_a_schema(said: str, passed: bool, reason: str | None) -> None:
    """A schema says where an answer does not fit, and nothing of what it says."""
    schema = Schema({"type": "object", "properties": {"n": {"type": "integer"}}})
    [verdict] = appraise(task("", said, schema)).verdicts
    assert (verdict.passed, verdict.reason) == (passed, reason)


def test_a_schema_that_makes_no_sense_has_no_verdict() -> None:
    """A keyword with a value it cannot have neither passes nor fails anything."""
    [verdict] = appraise(task("", '"text"', Schema({"minLength": "x"}))).verdicts
    assert (verdict.passed, verdict.reason) == (None, "bad_schema")


def test_a_failure_is_not_compared() -> None:
    """An error says nothing: it agrees with nothing, and fails every check."""
    found = appraise(task("Hello.", "", Exact(), failed=True))
    assert (found.agreement.equal, found.agreement.reason) == (None, "failed")
    assert found.verdicts[0].passed is False


def test_without_bodies_only_figures_remain() -> None:
    """What was not captured is not compared, and checks have no verdict rather than a bad one."""
    bare = msgspec.structs.replace(task("Hello.", "Hello.", *CHECKS), body_b=None)
    found = appraise(bare)
    assert (found.agreement.equal, found.agreement.reason) == (None, "no_content")
    assert {verdict.passed for verdict in found.verdicts} == {None}
    assert (found.a.cost_nanos, found.b.refused) == (7, None)


def test_a_pattern_that_does_not_end_is_ended() -> None:
    """The child is ended, the item has its figures and no agreement, and the next task has a new child."""
    hostile = Pattern("^(a+)+$")

    async def story() -> None:
        appraiser = Appraiser()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(appraiser.close)
            assert (await appraiser.appraise(task("a", "a", hostile), PATIENCE_S)).agreement.equal  # it has started
            found = await appraiser.appraise(task("a", "a" * 40 + "!", hostile), 0.5)
            assert (found.agreement.reason, found.b.cost_nanos) == ("timeout", 7)
            assert [(one.passed, one.reason) for one in found.verdicts] == [(None, "timeout")]
            again = await appraiser.appraise(task("a", "a", hostile), PATIENCE_S)
            assert (again.agreement.equal, again.verdicts[0].passed) == (True, True)

    asyncio.run(story())


def test_who_gives_up_leaves_nothing_behind() -> None:
    """The next task has its own appraisal, not that of a task nobody waits for any more."""
    hostile = Pattern("^(a+)+$")

    async def story() -> None:
        appraiser = Appraiser()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(appraiser.close)
            await appraiser.appraise(task("a", "a", hostile), PATIENCE_S)  # it has started
            given_up = asyncio.create_task(appraiser.appraise(task("a", "a" * 22 + "!", hostile), PATIENCE_S))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait((given_up,))
            [verdict] = (await appraiser.appraise(task("a", "a", hostile), PATIENCE_S)).verdicts
            assert verdict.passed is True

    asyncio.run(story())
