"""Keeping Python's own pauses out of the hot path.

Two of them: the cyclic collector, which would walk every object of the process in the middle of a call, and the
interpreter lock's switch interval, for which the event loop waits while the writer thread computes.

What is alive after start stays alive, so it is frozen out of collection; young objects are collected seldom, because
a call's objects form few cycles and die by reference count. The interval is a tenth of Python's default: the loop's
wait for the lock shows in the latency of every call, and a switch costs a few microseconds only when both want it.
"""

from __future__ import annotations

import gc
import sys

GENERATION_0_OBJECTS = 50_000
SWITCH_SECONDS = 0.0005


def tame_collector() -> None:
    """Call once per process, when everything that lives for ever has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GENERATION_0_OBJECTS, 20, 100)
    sys.setswitchinterval(SWITCH_SECONDS)
