"""Fits a tree of texts to a struct, and says exactly what does not fit and where.

msgspec's own conversion would name neither the line nor, inside a dict, the key; so the walk is ours and the types,
bounds and defaults are read from the structs through ``msgspec.inspect``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec.inspect as kinds
from msgspec import Struct

from counterfoil.config.model import POINTER, TARGET
from counterfoil.config.tree import Branch, Leaf, Node, Origin, Sequence, expand, fault

S = TypeVar("S", bound=Struct)

Spelling = Callable[[Node], Node]
"""Rewrites a short way of writing a struct into its full one."""

_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*\Z")
_NUMBER = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\Z")
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Fitter:
    """Fits nodes to types. ``places`` remembers where each path was written, for checks that come later."""

    def __init__(self, environ: Mapping[str, str], spellings: Mapping[type, Spelling]) -> None:
        self._environ = environ
        self._spellings = spellings
        self.places: dict[str, Origin] = {}

    def struct(self, node: Node, cls: type[S], path: str = "") -> S:
        """A ``cls`` with the values of ``node``. Raises :class:`ConfigError` at the first thing that does not fit."""
        return self._fit(node, kinds.type_info(cls), path)

    def value(self, node: Node, cls: type[Struct], field: str) -> Any:
        """The value of one field of ``cls`` written as ``node``, whatever the other fields hold."""
        fields = {item.name: item.type for item in _struct(cls).fields}
        return self._fit(node, fields[field], field)

    def where(self, path: str) -> Origin:
        """The place of ``path``, or of the nearest part of it that was written."""
        while path not in self.places and "." in path:
            path = path.rpartition(".")[0]
        return self.places.get(path, Origin("configuration"))

    def _fit(self, node: Node, kind: kinds.Type, path: str) -> Any:
        self.places[path] = node.origin
        kind = bare(kind)
        if isinstance(kind, kinds.UnionType):
            if isinstance(node, Leaf) and node.is_null:
                return None
            kind = optional(kind)
        if isinstance(kind, kinds.StructType):
            return self._struct(node, kind, path)
        if isinstance(kind, kinds.DictType):
            entries = self._branch(node, path).entries
            return {key: self._fit(child, kind.value_type, join(path, key)) for key, child in entries.items()}
        if isinstance(kind, kinds.ListType):
            return self._list(node, kind, path)
        return self._scalar(node, kind, path)

    def _struct(self, node: Node, kind: kinds.StructType, path: str) -> Any:
        spelling = self._spellings.get(kind.cls)
        branch = self._branch(spelling(node) if spelling else node, path)
        fields = {item.name: item for item in kind.fields}
        for key, child in branch.entries.items():
            if key not in fields:
                raise fault(child.origin, join(path, key), f"unknown key; {suggestion(key, fields)}")
        for name, item in fields.items():
            if item.required and name not in branch.entries:
                raise fault(node.origin, join(path, name), "this key is needed")
        values = {key: self._fit(child, fields[key].type, join(path, key)) for key, child in branch.entries.items()}
        return kind.cls(**values)

    def _branch(self, node: Node, path: str) -> Branch:
        if isinstance(node, Branch):
            return node
        if isinstance(node, Leaf) and node.is_null:
            return Branch({}, node.origin)
        raise fault(node.origin, path, f"expected keys and values, got {_name(node)}")

    def _list(self, node: Node, kind: kinds.ListType, path: str) -> list[Any]:
        if not isinstance(node, Sequence):
            raise fault(node.origin, path, f"expected a list, got {_name(node)}")
        least, most = kind.min_length or 0, kind.max_length
        if len(node.items) < least:
            raise fault(node.origin, path, f"expected at least {least} entries, got {len(node.items)}")
        if most is not None and len(node.items) > most:
            raise fault(node.origin, path, f"expected at most {most} entries, got {len(node.items)}")
        return [self._fit(item, kind.item_type, f"{path}[{index}]") for index, item in enumerate(node.items)]

    def _scalar(self, node: Node, kind: kinds.Type, path: str) -> Any:
        if not isinstance(node, Leaf):
            raise fault(node.origin, path, f"expected {_expected(kind)}, got {_name(node)}")
        if node.is_null:
            raise fault(node.origin, path, f"expected {_expected(kind)}, got nothing")
        text = expand(node, path, self._environ).text
        try:
            return _convert(text, kind, node.origin)
        except ValueError as error:
            # The text as written: an expanded one may be a secret.
            raise fault(node.origin, path, f"expected {_expected(kind)}, got {_shown(node)}") from error


def bare(kind: kinds.Type) -> kinds.Type:
    """The type inside its description."""
    while isinstance(kind, kinds.Metadata):
        kind = kind.type
    return kind


def optional(kind: kinds.UnionType) -> kinds.Type:
    """The one type beside None. The structs have no other unions."""
    (inner,) = [item for item in kind.types if not isinstance(item, kinds.NoneType)]
    return bare(inner)


def join(path: str, key: str) -> str:
    """The path of ``key`` below ``path``."""
    return f"{path}.{key}" if path else key


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was probably meant to be, if any comes near."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


_FORMS: Final = {
    TARGET: "provider/model, such as openai/gpt-4o-mini",
    POINTER: "a JSON pointer, such as /user",
}
"""The patterns of the configuration in words."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """What to write instead of ``word``: the nearest known word, or all of them."""
    words = list(known)
    near = nearest(word, words)
    return f"did you mean {near}?" if near else f"known here: {', '.join(words)}"


def _struct(cls: type[Struct]) -> kinds.StructType:
    info = kinds.type_info(cls)
    if not isinstance(info, kinds.StructType):
        raise TypeError(cls)
    return info


def _convert(text: str, kind: kinds.Type, origin: Origin) -> Any:
    """``text`` as ``kind``; raises ValueError when it is not one."""
    if isinstance(kind, kinds.StrType):
        if kind.pattern is not None and not re.search(kind.pattern, text):
            raise ValueError(text)
        return text
    if isinstance(kind, kinds.IntType):
        return _bounded(int(text) if _INTEGER.match(text) else None, kind)
    if isinstance(kind, kinds.FloatType):
        return _bounded(float(text) if _NUMBER.match(text) else None, kind)
    if isinstance(kind, kinds.BoolType):
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    if isinstance(kind, kinds.LiteralType):
        if text not in kind.values:
            raise ValueError(text)
        return text
    if isinstance(kind, kinds.CustomType) and kind.cls is Path:
        if not text or "\0" in text:
            raise ValueError(text)
        return origin.folder / Path(text).expanduser()
    raise TypeError(kind)


def _bounded(number: Any, kind: kinds.IntType | kinds.FloatType) -> Any:
    if number is None:
        raise ValueError
    within = (
        (kind.ge is None or number >= kind.ge)
        and (kind.gt is None or number > kind.gt)
        and (kind.le is None or number <= kind.le)
        and (kind.lt is None or number < kind.lt)
    )
    if not within:
        raise ValueError(number)
    return number


def _expected(kind: kinds.Type) -> str:
    if isinstance(kind, kinds.IntType | kinds.FloatType):
        return ("a whole number" if isinstance(kind, kinds.IntType) else "a number") + _bounds(kind)
    if isinstance(kind, kinds.BoolType):
        return "true or false"
    if isinstance(kind, kinds.LiteralType):
        return " or ".join(str(value) for value in kind.values)
    if isinstance(kind, kinds.StrType):
        return _FORMS.get(kind.pattern, f"a text of the form {kind.pattern}") if kind.pattern else "a text"
    return "a path"


def _bounds(kind: kinds.IntType | kinds.FloatType) -> str:
    parts = [
        f"{word} {bound:,}"
        for word, bound in (("at least", kind.ge), ("above", kind.gt), ("at most", kind.le), ("below", kind.lt))
        if bound is not None
    ]
    return f", {' and '.join(parts)}" if parts else ""


def _name(node: Node) -> str:
    if isinstance(node, Branch):
        return "keys and values"
    return "a list" if isinstance(node, Sequence) else f"the text {_shown(node)}"


def _shown(leaf: Leaf) -> str:
    text = leaf.text if len(leaf.text) <= 60 else leaf.text[:57] + "…"
    return repr(text)
