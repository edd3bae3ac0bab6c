"""``COUNTERFOIL_…`` variables: every key of the configuration, spelled in capitals with underscores.

A name is read against the schema, field by field: ``COUNTERFOIL_CAPTURE_RETENTION_DAYS`` is ``capture.retention_days``.
Where the schema leaves the name free (a provider, an alias, a header) a name that is already configured or known wins,
``-`` and ``.`` standing as ``_``; otherwise the shortest name after which the rest is a key, in lower case with ``-``
for ``_``. Lists are comma-separated; any value may also be YAML in ``[…]`` or ``{…}``. An empty variable is not set.

A variable that fits nothing is an error, because a setting that silently does nothing is worse. Exempt are the names
below and those that Kubernetes and container links make for a service called ``counterfoil``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec.inspect as kinds

from counterfoil.config.known import KNOWN_PROVIDERS
from counterfoil.config.model import Config, RouteConfig
from counterfoil.config.shape import bare, nearest, optional
from counterfoil.config.tree import Branch, Leaf, Node, Origin, Sequence, from_yaml, overlay
from counterfoil.errors import ConfigError

PREFIX = "COUNTERFOIL_"
CONFIG = "COUNTERFOIL_CONFIG"
RESERVED = frozenset({CONFIG, "COUNTERFOIL_URL", "COUNTERFOIL_KEY"})
RESERVED_PREFIXES = ("COUNTERFOIL_TEST_", "COUNTERFOIL_DEMO_", "COUNTERFOIL_BENCH_")
_INJECTED = re.compile(
    r"COUNTERFOIL_(SERVICE_(HOST|PORT)(_\w+)?|NAME|ENV_\w+|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)\Z"
)

_Path = tuple[str, ...]


def layer(environ: Mapping[str, str], below: Branch) -> Branch:
    """The tree the variables in ``environ`` write, to be laid over ``below`` (whose names they may refer to).

    Raises :class:`ConfigError` for a ``COUNTERFOIL_…`` variable that is no key.
    """
    result: Node = Branch({}, Origin("the environment"))
    for variable in sorted(environ):
        value = environ[variable]
        if not variable.startswith(PREFIX) or not value or _is_foreign(variable, value):
            continue
        path, kind = _resolve(variable, value, below)
        node = _node(value, kind, Origin(variable))
        for key in reversed(path):
            node = Branch({key: node}, Origin(variable))
        result = overlay(result, node)
    return result if isinstance(result, Branch) else below


def _is_foreign(variable: str, value: str) -> bool:
    if variable in RESERVED or variable.startswith(RESERVED_PREFIXES) or _INJECTED.match(variable):
        return True
    return variable == "COUNTERFOIL_PORT" and value.startswith(("tcp://", "udp://"))


def _resolve(variable: str, value: str, below: Branch) -> tuple[_Path, kinds.Type]:
    rest = variable.removeprefix(PREFIX)
    for path, kind in _matches(rest, kinds.type_info(Config), below, ()):
        whole = isinstance(kind, kinds.StructType | kinds.DictType)
        if not whole or kind == kinds.type_info(RouteConfig) or value.startswith("{"):
            return path, kind
    near = nearest(rest, _names(kinds.type_info(Config), below, ()))  # without the prefix, which would make all alike
    hint = f"did you mean {PREFIX}{near}?" if near else "see docs/configuration.md for the names"
    raise ConfigError(f"{variable}: unknown variable; {hint}")


def _matches(rest: str, kind: kinds.Type, below: Node | None, path: _Path) -> Iterator[tuple[_Path, kinds.Type]]:
    """Every reading of ``rest`` as a path into ``kind``, the best first."""
    kind = _inner(kind)
    if isinstance(kind, kinds.StructType):
        for field in kind.fields:
            yield from _step(rest, field.name, field.type, below, path)
    elif isinstance(kind, kinds.DictType):
        known = sorted(_known(path, below), key=len, reverse=True)
        for name in known:
            yield from _step(rest, name, kind.value_type, below, path)
        for end in _ends(rest):
            yield from _step(rest, rest[:end].lower().replace("_", "-"), kind.value_type, below, path)


def _step(
    rest: str, name: str, kind: kinds.Type, below: Node | None, path: _Path
) -> Iterator[tuple[_Path, kinds.Type]]:
    spelled = _spelled(name)
    if rest == spelled:
        yield (*path, name), _inner(kind)
    elif rest.startswith(spelled + "_"):
        child = below.entries.get(name) if isinstance(below, Branch) else None
        yield from _matches(rest[len(spelled) + 1 :], kind, child, (*path, name))


def _ends(rest: str) -> Iterator[int]:
    yield from (index for index, letter in enumerate(rest) if letter == "_" and 0 < index < len(rest) - 1)
    yield len(rest)


def _known(path: _Path, below: Node | None) -> Iterable[str]:
    written = below.entries if isinstance(below, Branch) else {}
    return {*written, *KNOWN_PROVIDERS} if path == ("providers",) else written


def _names(kind: kinds.Type, below: Node | None, path: _Path) -> Iterator[str]:
    """The spelled names of every leaf, for suggestions."""
    kind = _inner(kind)
    if isinstance(kind, kinds.StructType) and kind.cls is not RouteConfig:
        children = [(field.name, field.type) for field in kind.fields]
    elif isinstance(kind, kinds.DictType):
        children = [(name, kind.value_type) for name in _known(path, below)]
    else:
        yield "_".join(_spelled(part) for part in path)
        return
    for name, child in children:
        yield from _names(child, below.entries.get(name) if isinstance(below, Branch) else None, (*path, name))


def _inner(kind: kinds.Type) -> kinds.Type:
    kind = bare(kind)
    return optional(kind) if isinstance(kind, kinds.UnionType) else kind


def _spelled(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def _node(value: str, kind: kinds.Type, origin: Origin) -> Node:
    """``value`` as a tree. A scalar is taken as it stands, so a key may hold any character."""
    if not isinstance(kind, kinds.StructType | kinds.DictType | kinds.ListType):
        return Leaf(value, origin, quoted=True)
    if value.startswith(("[", "{")):
        return from_yaml(value, origin, expands=False, numbered=False) or Leaf("", origin)
    items: list[Node] = [Leaf(part.strip(), origin, quoted=True) for part in value.split(",") if part.strip()]
    return Sequence(items, origin)
