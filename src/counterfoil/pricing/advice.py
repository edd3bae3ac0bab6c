"""What other models did inside a call: each at its own model's rates.

Anthropic's advisor tool lets a cheap model consult a dear one; the usage of the answer counts the first, and the
consulted model's tokens stand beside it as meters that name it: ``advisor_input_tokens.claude-opus-4-8``. They become
lines of the same names, priced by the rules of that model. So do the tokens of a model that declined when it had begun
to write (``declined_output_tokens.claude-fable-5``). Where a fallback answered, ``fallbacks.claude-opus-4-8`` is no
line: it names the model whose rates the call's own tokens have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from counterfoil.pricing import meters as m
from counterfoil.record.charge import Charge
from counterfoil.record.usage import FALLBACK, Usage, UsageSource

_WHO: Final = ("advisor_", "declined_")
_MARKS: Final = (*_WHO, FALLBACK)
_ONCE: Final = (m.REQUESTS, m.REQUEST_FEE)
_DETAILS: Final = ("cached_tokens", "cache_write_tokens")


def holds(meters: Mapping[str, int]) -> bool:
    """Whether any of ``meters`` is of another model."""
    for name in meters:  # noqa: SIM110  for every call with a meter, and half the time of any()
        if name.startswith(_MARKS):
            return True
    return False


def apart(usage: Usage, meters: Mapping[str, int]) -> tuple[Usage, dict[tuple[str, str], Usage]]:
    """``usage`` without what other models consumed, and that by who they were and the name of the model."""
    rest: dict[str, int] = {}
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for name, quantity in meters.items():
        stem, _, model = name.partition(".")
        who = next((prefix for prefix in _WHO if name.startswith(prefix)), "")
        if who and model:
            counts.setdefault((who, model), {})[stem.removeprefix(who)] = quantity
        elif not name.startswith(FALLBACK):
            rest[name] = quantity
    own = msgspec.structs.replace(usage, meters=rest or UNSET)
    return own, {other: _usage(found, usage.source) for other, found in sorted(counts.items())}


def named(charge: Charge, who: str, model: str) -> Charge:
    """``charge`` with lines that say whose they are. What is paid by the request was paid by the call itself."""
    lines = tuple(
        msgspec.structs.replace(line, meter=f"{who}{line.meter}.{model}")
        for line in charge.lines
        if line.meter not in _ONCE
    )
    return Charge(lines, sum(line.amount_nanos for line in lines), charge.state, charge.reason)


def _usage(counts: dict[str, int], source: UsageSource) -> Usage:
    prompt, completion = counts.get("input_tokens", 0), counts.get("output_tokens", 0)
    details = {name: counts[name] for name in _DETAILS if name in counts}
    return Usage(prompt, completion, prompt + completion, details or UNSET, source=source)
