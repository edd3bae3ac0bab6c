"""What is asked of a bulk run, as values. Pure.

Everything has a bound: a run is started by a request, and what it takes is money and a gateway's time.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from counterfoil.errors import CallerFault
from counterfoil.ledger.filters import Filter
from counterfoil.replay.bulk import schemas
from counterfoil.replay.override import Edit, Overrides

ITEMS_MAX: Final = 100_000
"""Generations of one run; more of them say nothing new about a model."""
TARGETS_MAX: Final = 8
JUDGES_MAX: Final = 8
CONCURRENCY_MAX: Final = 64
NAME_LENGTH_MAX: Final = 128
PATTERN_LENGTH_MAX: Final = 2_000

Name = Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH_MAX)]


class Target(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What each generation is rerun against: another model, changed parameters, or (empty) the very same call."""

    name: Name | None = None
    model: Name | None = None
    provider: Name | None = None
    patch: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    edits: tuple[Edit, ...] = ()
    stream: bool | None = None

    @property
    def overrides(self) -> Overrides:
        """The changes to each captured request."""
        return Overrides(
            patch=self.patch, edits=self.edits, model=self.model, provider=self.provider, stream=self.stream
        )

    @property
    def label(self) -> str:
        """What people call this target."""
        return self.name or self.model or (f"{self.provider}/…" if self.provider else "as recorded")


class Exact(Struct, frozen=True, forbid_unknown_fields=True, tag="exact"):
    """Passes when the answer says what the original said: text, tool calls, refusal. ``ignore_space`` evens space."""

    name: Name = "exact"
    ignore_space: bool = False


class Pattern(Struct, frozen=True, forbid_unknown_fields=True, tag="regex"):
    """Passes when ``pattern`` (Python's syntax) is found in the text; with ``absent`` when it is not."""

    pattern: Annotated[str, Meta(max_length=PATTERN_LENGTH_MAX)]
    name: Name = "regex"
    absent: bool = False


class Schema(Struct, frozen=True, forbid_unknown_fields=True, tag="json_schema"):
    """Passes when the text is JSON that ``schema`` allows."""

    schema: dict[str, Any] | bool
    name: Name = "json_schema"


class ModelJudge(Struct, frozen=True, forbid_unknown_fields=True, tag="model", kw_only=True):
    """Asks a model, through this gateway and within the budget, for a score between 0 and 1.

    ``patch`` is merged into the judge's request (a token limit under another name, a temperature).
    """

    model: Name
    name: Name = "model"
    criteria: Annotated[str, Meta(max_length=20_000)] = ""
    pass_at: Annotated[float, Meta(ge=0, le=1)] = 0.5
    patch: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class External(Struct, frozen=True, forbid_unknown_fields=True, tag="external"):
    """Judged outside of the gateway, by whoever started the run: verdicts are posted."""

    name: Name


Check = Exact | Pattern | Schema
Judge = Exact | Pattern | Schema | ModelJudge | External


class Asked(Struct, frozen=True, kw_only=True):
    """A bulk run as it was asked for. ``filter`` has absolute times; ``shown_filter`` is what the caller wrote."""

    name: str | None = None
    filter: Filter | None = None
    shown_filter: dict[str, Any] = {}
    ids: tuple[str, ...] = ()
    sample: int | None = None
    seed: int = 0
    targets: tuple[Target, ...] = (Target(),)
    concurrency: int = 4
    rate: float | None = None
    budget_nanos: int | None = None
    retries: int = 2
    judges: tuple[Judge, ...] = ()

    @property
    def checks(self) -> tuple[tuple[int, Check], ...]:
        """The judges that the gateway's child process applies, with their places."""
        return tuple((at, one) for at, one in enumerate(self.judges) if isinstance(one, Check))


def checked(asked: Asked) -> Asked:
    """``asked``, when a run can be made of it. Raises :class:`CallerFault` that names the field."""
    if bool(asked.ids) == (asked.filter is not None):
        raise CallerFault("invalid_field", "Give a filter or a list of ids: one of them.", param="filter")
    if not 1 <= len(asked.targets) <= TARGETS_MAX:
        raise CallerFault("invalid_field", f"Name 1 to {TARGETS_MAX} targets.", param="targets")
    labels = [target.label for target in asked.targets]
    if len(set(labels)) < len(labels):
        raise CallerFault("invalid_field", "Two targets have the same name; give each a name.", param="targets")
    _check_judges(asked.judges)
    return asked


def _check_judges(judges: tuple[Judge, ...]) -> None:
    if len(judges) > JUDGES_MAX:
        raise CallerFault("invalid_field", f"At most {JUDGES_MAX} judges.", param="judges")
    names = [judge.name for judge in judges]
    if len(set(names)) < len(names):
        raise CallerFault("invalid_field", "Two judges have the same name; give each a name.", param="judges")
    for judge in judges:
        if isinstance(judge, Pattern):
            try:
                re.compile(judge.pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise CallerFault("invalid_field", f"{judge.name} is no pattern: {error}.", param="judges") from error
        if isinstance(judge, Schema):
            schemas.check(judge.schema)
