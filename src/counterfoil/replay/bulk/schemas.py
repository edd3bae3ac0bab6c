"""Whether a JSON value fits a JSON Schema: the keywords that schemas for structured output use. Pure.

A keyword that is not known here is refused when the run is asked for, never passed over: a check that silently does
not check is worse than none. Annotations (title, description, …) are passed over, as the specification says.

Source: JSON Schema 2020-12, Core and Validation, read 2026-11. ``$ref`` leads to places inside the same schema only.
``pattern`` is searched with Python's ``re``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, Final, cast

from counterfoil.errors import CallerFault
from counterfoil.wire.pointer import split

DEPTH_MAX: Final = 64
_ANNOTATIONS: Final = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "format", "deprecated", "readOnly",
     "writeOnly", "$defs", "definitions", "strict", "name"}
)  # fmt: skip
Object = dict[str, Any]


def check(schema: Any, depth: int = 0) -> None:
    """Raises :class:`CallerFault` for a schema that is none, or asks for what is not known here."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict) or depth > DEPTH_MAX:
        raise CallerFault("invalid_field", "A JSON Schema is an object or a boolean, not too deep.", param="judges")
    for keyword, value in cast("Object", schema).items():
        if keyword in ("pattern", "patternProperties"):
            _compiled(value)
        if keyword in ("$defs", "definitions", "properties", "patternProperties") and isinstance(value, dict):
            for part in cast("Object", value).values():
                check(part, depth + 1)
        elif keyword in ("items", "additionalProperties", "not"):
            check(value, depth + 1)
        elif keyword in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            for part in cast("list[Any]", value):
                check(part, depth + 1)
        elif keyword not in _ANNOTATIONS and keyword not in _KEYWORDS and keyword not in ("$ref", "items"):
            message = f"The schema's keyword {keyword!r} is not one that is checked here."
            raise CallerFault("invalid_field", message, param="judges")


def _compiled(patterns: Any) -> None:
    for pattern in cast("Object", patterns) if isinstance(patterns, dict) else (patterns,):
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            raise CallerFault("invalid_field", f"{error} in a pattern of the schema.", param="judges") from error


def problem(value: Any, schema: Any) -> str | None:
    """Where ``value`` does not fit, as a JSON pointer and the keyword (``/tags/0 type``); None when it fits."""
    return _problem(value, schema, schema, "", 0)


def _problem(value: Any, schema: Any, root: Any, at: str, depth: int) -> str | None:
    if schema is True or depth > DEPTH_MAX:
        return None
    if not isinstance(schema, dict):
        return f"{at} false"
    members = cast("Object", schema)
    if "$ref" in members:
        found = _problem(value, _resolved(root, str(members["$ref"])), root, at, depth + 1)
        if found is not None:
            return found
    for keyword, wanted in members.items():
        test = _KEYWORDS.get(keyword)
        if test is not None and not test(value, wanted):
            return f"{at} {keyword}"
    return _inside(value, members, root, at, depth + 1) or _combined(value, members, root, at, depth + 1)


def _inside(value: Any, schema: Object, root: Any, at: str, depth: int) -> str | None:
    """The first problem in a member or an item."""
    parts: list[tuple[str, Any, Any]] = []
    if isinstance(value, dict):
        known: Object = schema.get("properties", {})
        patterns: Object = schema.get("patternProperties", {})
        for name, part in cast("Object", value).items():
            fits = [known[name]] if name in known else []
            fits += [one for pattern, one in patterns.items() if re.search(pattern, name)]
            parts += [(name, part, one) for one in fits or [schema.get("additionalProperties", True)]]
    elif isinstance(value, list):
        first: list[Any] = schema.get("prefixItems", [])
        for index, part in enumerate(cast("list[Any]", value)):
            parts.append((str(index), part, first[index] if index < len(first) else schema.get("items", True)))
    for name, part, one in parts:
        found = _problem(part, one, root, f"{at}/{name.replace('~', '~0').replace('/', '~1')}", depth)
        if found is not None:
            return found
    return None


def _combined(value: Any, schema: Object, root: Any, at: str, depth: int) -> str | None:
    def fits(one: Any) -> bool:
        return _problem(value, one, root, at, depth) is None

    if not all(fits(one) for one in schema.get("allOf", ())):
        return f"{at} allOf"
    if "anyOf" in schema and not any(fits(one) for one in schema["anyOf"]):
        return f"{at} anyOf"
    if "oneOf" in schema and sum(fits(one) for one in schema["oneOf"]) != 1:
        return f"{at} oneOf"
    if "not" in schema and fits(schema["not"]):
        return f"{at} not"
    return None


def _resolved(root: Any, ref: str) -> Any:
    """The schema at ``#/…``; one that leads nowhere allows nothing."""
    if ref == "#":
        return root
    value = root
    for name in split(ref):
        if not isinstance(value, dict) or name not in value:
            return False
        value = cast("Object", value)[name]
    return value


def _is_type(value: Any, wanted: Any) -> bool:
    names = cast("list[Any]", wanted) if isinstance(wanted, list) else [wanted]
    return any(_TYPES.get(str(name), _no)(value) for name in names)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sized(kind: type, test: Callable[[int, Any], bool]) -> Callable[[Any, Any], bool]:
    """A keyword about the length of one kind of value; others fit."""
    return lambda value, wanted: not isinstance(value, kind) or test(len(value), wanted)


def _no(_: Any) -> bool:
    return False


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _unique(items: list[Any]) -> bool:
    return all(not _same(a, b) for at, a in enumerate(items) for b in items[:at])


_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _number,
    "integer": lambda value: _number(value) and value == int(value),
}
_KEYWORDS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "type": _is_type,
    "enum": lambda value, wanted: any(_same(value, one) for one in wanted),
    "const": _same,
    "required": lambda value, wanted: not isinstance(value, dict) or all(name in value for name in wanted),
    "minLength": _sized(str, operator.ge),
    "maxLength": _sized(str, operator.le),
    "pattern": lambda value, wanted: not isinstance(value, str) or re.search(wanted, value) is not None,
    "minimum": lambda value, wanted: not _number(value) or value >= wanted,
    "maximum": lambda value, wanted: not _number(value) or value <= wanted,
    "exclusiveMinimum": lambda value, wanted: not _number(value) or value > wanted,
    "exclusiveMaximum": lambda value, wanted: not _number(value) or value < wanted,
    "multipleOf": lambda value, wanted: not _number(value) or value % wanted == 0,
    "minItems": _sized(list, operator.ge),
    "maxItems": _sized(list, operator.le),
    "uniqueItems": lambda value, wanted: not (isinstance(value, list) and wanted) or _unique(cast("list[Any]", value)),
    "minProperties": _sized(dict, operator.ge),
    "maxProperties": _sized(dict, operator.le),
}
