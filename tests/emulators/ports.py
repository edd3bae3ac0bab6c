"""Ports for servers that are told theirs: nobody gets one by chance between the choice and the server's start."""

from __future__ import annotations

import itertools
import os
from typing import Final

from counterfoil.demo.processes import port_is_free

HOST: Final = "127.0.0.1"
FIRST: Final = 10_240
COUNT: Final = 20_000
"""Below 32768, where Linux begins to hand out ports to whoever asks for any, a client's end of a connection too. A
gateway that is killed and started again on its port must not find it taken by one of those."""

_offers = itertools.count(int.from_bytes(os.urandom(4), "big"))
"""Begins anywhere, so that two runs beside each other do not choose alike; in one run no port comes twice."""


def free_port() -> int:
    """A port of :data:`HOST` that nobody listens on, and that nobody is given who did not ask for this very one."""
    return next(port for at in _offers if port_is_free(HOST, port := FIRST + at % COUNT))
