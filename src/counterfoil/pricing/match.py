"""Which model a name means: the catalogue's match clauses, and an index that finds the first model in list order.

A clause is a list whose head says how it matches: ``["=", text]`` equal, ``["^", text]`` prefix, ``["$", text]``
suffix, ``["*", text]`` contained, ``["~", pattern]`` regular expression, ``["|", clause…]`` any of them,
``["&", clause…]`` all. Names are compared in lower case. Most clauses are equalities, so those go into a table, and
only the rest is tried one by one, up to the place in the list where the table already has an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from counterfoil.pricing.rates import Model

_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=[-:]|$)")
_RESOURCE = "models/"
_compiled = lru_cache(maxsize=512)(re.compile)


def matches(clause: Sequence[Any], name: str) -> bool:
    """Whether ``name`` (lower case) satisfies ``clause``."""
    head = clause[0]
    if head == "|":
        return any(matches(part, name) for part in clause[1:])
    if head == "&":
        return all(matches(part, name) for part in clause[1:])
    text: str = clause[1]
    if head == "~":
        return _compiled(text).search(name) is not None
    return _SIMPLE[head](name, text)


_SIMPLE = {
    "=": str.__eq__,
    "^": str.startswith,
    "$": str.endswith,
    "*": str.__contains__,
}


class ModelIndex:
    """The models of one provider, found by any name they go by."""

    __slots__ = ("_clauses", "_equal", "_models")

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        self._equal: dict[str, int] = {}
        self._clauses: list[tuple[int, list[Any]]] = []
        for place, model in enumerate(models):
            parts = model.match[1:] if model.match[0] == "|" else [model.match]
            rest = [part for part in parts if part[0] != "="]
            for part in parts:
                if part[0] == "=":
                    self._equal.setdefault(part[1], place)
            if rest:
                self._clauses.append((place, ["|", *rest]))

    def find(self, name: str) -> Model | None:
        """The first model that ``name`` means, or None.

        A name that means nothing as it stands is tried with a compact date dashed (``-20251211``), and without the path
        of a resource name (``models/``, ``publishers/google/models/``).
        """
        name = name.lower()
        model = self._find(name)
        if model is None and (dashed := _COMPACT_DATE.sub(r"-\1-\2-\3", name)) != name:
            model = self._find(dashed)
        if model is None and (rest := name.rpartition(_RESOURCE)[2]) != name:
            model = self._find(rest)
        return model

    def _find(self, name: str) -> Model | None:
        best = self._equal.get(name, len(self._models))
        for place, clause in self._clauses:
            if place > best:
                break
            if matches(clause, name):
                best = place
                break
        return self._models[best] if best < len(self._models) else None
