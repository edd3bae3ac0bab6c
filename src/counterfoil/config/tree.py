"""The configuration before it has types: a tree of texts, each of which knows where it was written.

Three sources make such trees (the file, the environment, the command line), :func:`overlay` lays them on one another,
and ``shape`` fits the result to the structs of ``model``. Scalars stay text until then, because only the expected type
says what ``off``, ``1_000`` or ``null`` means: YAML 1.1 alone would read ``capture: {default: off}`` as false.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from counterfoil.errors import ConfigError

NODES_MAX = 20_000
"""More than any real configuration; stops aliases that multiply themselves."""


class Origin(NamedTuple):
    """Where something was written, as errors name it, and the folder relative paths start from."""

    place: str
    folder: Path = Path()


class Leaf(NamedTuple):
    """A scalar. ``quoted`` texts are never null; ``expands`` when ``${NAME}`` in it stands for a variable."""

    text: str
    origin: Origin
    quoted: bool = False
    expands: bool = False

    @property
    def is_null(self) -> bool:
        return not self.quoted and self.text in ("", "~", "null", "Null", "NULL")


class Sequence(NamedTuple):
    """A list."""

    items: list[Node]
    origin: Origin


class Branch(NamedTuple):
    """A mapping, in the order it was written."""

    entries: dict[str, Node]
    origin: Origin


Node = Leaf | Sequence | Branch


def fault(origin: Origin, path: str, problem: str) -> ConfigError:
    """The error for ``problem`` at ``path``, in the one form all configuration errors have."""
    return ConfigError(f"{origin.place}: {path}: {problem}" if path else f"{origin.place}: {problem}")


def overlay(base: Node | None, top: Node) -> Node:
    """``top`` laid on ``base``: mappings are joined key by key, everything else is replaced."""
    if not isinstance(base, Branch) or not isinstance(top, Branch):
        return top
    entries = dict(base.entries)
    for key, node in top.entries.items():
        entries[key] = overlay(entries.get(key), node)
    return Branch(entries, base.origin)


def from_values(values: Mapping[str, object], origin: Origin | None = None) -> Branch:
    """Plain values (the command line's) as a tree; ``None`` means not given. Each top key is named as its option."""
    entries = {
        key: _from_value(value, origin or Origin(f"--{key.replace('_', '-')}"))
        for key, value in values.items()
        if value is not None
    }
    return Branch(entries, origin or Origin("the command line"))


def _from_value(value: object, origin: Origin) -> Node:
    if isinstance(value, Mapping):
        return from_values(value, origin)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return Sequence([_from_value(item, origin) for item in value], origin)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, bool):
        return Leaf("true" if value else "false", origin)
    return Leaf(str(value), origin, quoted=True)


# A placeholder may stand unquoted inside {…} or […], where YAML gives its braces a meaning. So before YAML reads the
# text, each placeholder is written in private-use characters, one for one (columns stay true), and afterwards back.
_PLACEHOLDER = re.compile(r"\$?\$\{[A-Za-z_][A-Za-z0-9_]*(?::-[^}\n]*)?\}")
_SHIFT = 0xE000
_HIDE = {code: _SHIFT + code for code in range(0x20, 0x7F)}
_SHOW = {_SHIFT + code: code for code in range(0x20, 0x7F)}


def from_yaml(text: str, origin: Origin, *, expands: bool = True, numbered: bool = True) -> Node | None:
    """The tree of one YAML document, None for an empty one. Origins are ``place:line`` when ``numbered``.

    Raises :class:`ConfigError` for text that is not YAML, duplicate keys, several documents, tags, and keys that are
    not texts.
    """
    hidden = _PLACEHOLDER.sub(lambda match: match[0].translate(_HIDE), text)
    try:
        compose = cast("Callable[..., yaml.Node | None]", yaml.compose)  # pyright: ignore[reportUnknownMemberType]
        root = compose(hidden, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None and numbered else ""
        problem = (error.problem or error.context or "cannot be read").translate(_SHOW)
        raise ConfigError(f"{origin.place}{line}: this is not valid YAML: {problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{origin.place}: this is not valid YAML: it holds a character YAML does not allow"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{origin.place}: this is not valid YAML: it is nested too deeply") from error
    if root is None:
        return None
    return _Reader(origin, expands=expands, numbered=numbered).read(root, ())


class _Reader:
    """Turns PyYAML's nodes into ours."""

    def __init__(self, origin: Origin, *, expands: bool, numbered: bool) -> None:
        self._origin = origin
        self._expands = expands
        self._numbered = numbered
        self._left = NODES_MAX

    def read(self, node: yaml.Node, above: tuple[yaml.Node, ...], at: Origin | None = None) -> Node:
        origin = at or self._at(node)
        self._left -= 1
        if self._left < 0 or any(node is outer for outer in above):
            raise fault(origin, "", "the aliases (*name) make this endless; write the values out")
        if isinstance(node, yaml.ScalarNode):
            return self._leaf(node, origin)
        if isinstance(node, yaml.SequenceNode):
            return Sequence([self.read(item, (*above, node)) for item in node.value], origin)
        if isinstance(node, yaml.MappingNode):
            return self._branch(node, above, origin)
        raise fault(origin, "", "this cannot stand in a configuration")

    def _leaf(self, node: yaml.ScalarNode, origin: Origin) -> Leaf:
        if not node.tag.startswith("tag:yaml.org,2002:"):
            raise fault(origin, "", f"the tag {node.tag} is not known here; write the value without it")
        return Leaf(node.value.translate(_SHOW), origin, quoted=node.style is not None, expands=self._expands)

    def _branch(self, node: yaml.MappingNode, above: tuple[yaml.Node, ...], origin: Origin) -> Branch:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            here = self._at(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise fault(here, "", "a key must be a plain text")
            key = key_node.value.translate(_SHOW)
            if key in entries:
                raise fault(here, "", f"the key {key!r} is written twice (first at {entries[key].origin.place})")
            entries[key] = self.read(value_node, (*above, node), here)
        return Branch(entries, origin)

    def _at(self, node: yaml.Node) -> Origin:
        if not self._numbered:
            return self._origin
        return self._origin._replace(place=f"{self._origin.place}:{node.start_mark.line + 1}")


_REFERENCE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}\n]*))?\}")


def expand(leaf: Leaf, path: str, environ: Mapping[str, str]) -> Leaf:
    """``leaf`` with ``${NAME}`` and ``${NAME:-default}`` replaced; ``$${`` writes a ``${`` that stays.

    As in a shell, the default also stands in for an empty variable. Raises :class:`ConfigError` for an unset variable
    without a default and for a reference that cannot be read.
    """
    if not leaf.expands or "${" not in leaf.text:
        return leaf

    def value(match: re.Match[str]) -> str:
        escaped, name, default = match[1], match[2], match[3]
        if escaped:
            return match[0][1:]
        found = environ.get(name)
        if found is None and default is None:
            problem = f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
            raise fault(leaf.origin, path, problem)
        return (found or default or "") if default is not None else (found or "")

    rest = _REFERENCE.sub("", leaf.text)
    if "${" in rest:
        raise fault(
            leaf.origin, path, "a ${…} here cannot be read; write ${NAME}, ${NAME:-default}, or $${ for a plain ${"
        )
    return leaf._replace(text=_REFERENCE.sub(value, leaf.text), quoted=True)
