"""An orderly stop, and clients that leave: what was promised is finished, what was delivered is recorded."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from counterfoil.demo.processes import answers
from emulators.gateway import Gateway
from emulators.ports import HOST
from emulators.raw import RawClient, post
from emulators.scripted import Hang, ScriptedUpstream, Until, chat_frames, chunked
from emulators.waiting import wait_until
from faults import checker
from faults.checker import CHAT, Sent, body_of

WORDS = ("one", "two")
LEAVE_THREADS = 8
ALLOWED_SECONDS = 5
"""Were they counted twice, the supervisor would lose patience first."""
HEAD_BYTES_VARY = 16
"""The times in an answer's head are a few digits shorter or longer from call to call."""
KNOWN = ("reported", "partial", "absent", "estimated")


def test_a_stop_lets_a_stream_finish(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """SIGTERM with a stream in flight: its client gets every byte, its record is there, the exit status is 0."""
    head, *frames = chunked(*chat_frames(*WORDS))
    stopped = threading.Event()
    upstream.script = [head, frames[0], Until(stopped), *frames[1:]]
    sent = Sent(marks={"call-0"})
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, body_of("call-0", stream=True), gateway.key(), x_app_id="call-0"))
        head_bytes = client.read_until(b"\r\n\r\n").decode()
        client.read_until(b"\n\n")
        stopping = threading.Thread(target=gateway.stop)
        stopping.start()
        wait_until(lambda: not answers(HOST, gateway.port, "/health/live"))
        stopped.set()
        rest = client.read_all()
        stopping.join()
    assert b"data: [DONE]\n\n" in rest
    assert gateway.stop() == 0
    gateway.start()
    generation_id = next(line.split(": ")[1] for line in head_bytes.split("\r\n") if line.startswith("x-request-id"))
    sent.acknowledged["call-0"] = (generation_id, 200)
    [record] = checker.check(gateway, upstream, sent)
    assert (record["success"], record["usage"]["source"]) == (True, "reported")


def test_a_stop_ends_within_the_time_allowed(
    start_gateway: Any, local_config: dict[str, Any], upstream: ScriptedUpstream
) -> None:
    """A stream without end is broken off and recorded by its own worker, which nobody has to kill for being late."""
    upstream.script = [*chunked(*chat_frames(*WORDS)[:2], end=False), Hang()]
    gateway: Gateway = start_gateway({**local_config, "server": {"shutdown_seconds": ALLOWED_SECONDS}}, workers=2)
    with call(gateway, "call-0") as client:
        client.read_until(b"\n\n")
        assert gateway.stop() == 0
    assert "interrupted" in gateway.command("generations", "list", "--json").stdout


def call(gateway: Gateway, mark: str) -> RawClient:
    """Give the connection on which a stream was asked for."""
    client = RawClient(gateway.port)
    client.send(post(CHAT, body_of(mark, stream=True), gateway.key(), x_app_id=mark))
    return client


def leave_after(gateway: Gateway, mark: str, count: int) -> None:
    """Ask for a stream, take ``count`` bytes of the answer from the socket, and reset the connection."""
    with call(gateway, mark) as client:
        while count and (data := client.socket.recv(count)):
            count -= len(data)
        client.reset()
    assert not count, "the answer was shorter than that"


@pytest.mark.parametrize("ends", [True, False], ids=["whole", "endless"])
def test_a_client_may_leave_at_any_byte(gateway: Gateway, upstream: ScriptedUpstream, *, ends: bool) -> None:
    """Whatever byte was its last, there is one record: 499, with the provider hung up on, or the success it was."""
    frames = chat_frames(*WORDS)
    delivered = [*frames[:-2], frames[-1]] if ends else frames[:2]  # without the usage that only we asked for
    upstream.script = chunked(*frames) if ends else [*chunked(*delivered, end=False), Hang()]
    with call(gateway, "call-first") as client:
        size = len(client.read_until(b"\r\n\r\n")) - HEAD_BYTES_VARY
        size += sum(len(b"%x\r\n%b\r\n" % (len(frame), frame)) for frame in delivered)
    sent = Sent(marks={"call-first", *(f"call-{count}" for count in range(1, size))})
    with ThreadPoolExecutor(LEAVE_THREADS) as pool:
        list(pool.map(lambda count: leave_after(gateway, f"call-{count}", count), range(1, size)))
    wait_until(lambda: checker.settled(gateway))
    records = checker.check(gateway, upstream, sent)
    assert len(records) == size
    statuses = Counter(record["status_code"] for record in records)
    print(f"{size - 1} offsets: {dict(statuses)}")
    for record in records:
        left = (record["status_code"], record["error_code"]) == (499, "user:client_disconnected")
        assert left or (ends and record["success"])
        assert record["usage"]["source"] in (("partial", "absent") if left and not ends else KNOWN)
    if not ends:
        assert statuses == {499: size}
        wait_until(lambda: upstream.hung_up == size)
