"""A captured request with something changed: a merge patch, edits by pointer, another model, streaming or not. Pure.

Without changes the bytes are the captured bytes, the same object. A change of nothing but the model splices the model
into those bytes, and a form gets its values exchanged in place, so every byte that was not asked to change stays.
Only a patch or an edit of a JSON body writes that body anew; numbers keep their text, so that ``0.10`` and
``1e400`` survive.

Sources: RFC 7396 (JSON Merge Patch), RFC 6901 (JSON Pointer), read 2026-11. Of RFC 6902 the operations ``add``,
``remove`` and ``replace``.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal, cast
from urllib.parse import quote

from msgspec import UNSET, Struct, UnsetType

from counterfoil.errors import CallerFault
from counterfoil.surfaces import azure
from counterfoil.surfaces.azure import AzureSurface
from counterfoil.surfaces.base import Request, Surface
from counterfoil.surfaces.calls import splice_model
from counterfoil.wire.multipart import boundary_of, is_form, parts_of
from counterfoil.wire.pointer import split

EDITS_MAX: Final = 1_000
_GEMINI = re.compile(
    r"(/(?:v1|v1beta|v1beta1)/)(?:models|tunedModels)/(.+):(generateContent|streamGenerateContent|\w+)\Z"
)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}\Z")
Object = dict[str, Any]


class Edit(Struct, frozen=True, forbid_unknown_fields=True):
    """One edit of the body at a JSON pointer, such as ``/messages/0/content``."""

    path: str
    value: Any = None
    op: Literal["add", "remove", "replace"] = "replace"


class Overrides(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a rerun changes. Applied in this order: ``patch``, ``edits``, ``stream``, ``model``, ``provider``.

    ``model`` is what a client would write (``provider/model`` or an alias). ``provider`` alone keeps the model's own
    name and exchanges who serves it.
    """

    patch: Object | UnsetType = UNSET
    edits: tuple[Edit, ...] = ()
    model: str | None = None
    provider: str | None = None
    stream: bool | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return self == NONE


NONE: Final = Overrides()


class Sendable(Struct, frozen=True):
    """A request ready to be called: ``target`` is path and query."""

    target: str
    content_type: str
    body: bytes


def apply(asked: Sendable, surface: Surface, overrides: Overrides, model_id: str) -> Sendable:
    """``asked`` with ``overrides``; ``model_id`` (``provider/model``) is what served the original.

    Raises :class:`CallerFault` for an edit that does not fit the body, or a body that cannot be edited so.
    """
    if overrides.empty:
        return asked
    changed = _form(asked, overrides) if is_form(asked.content_type) else _json(asked, surface, overrides)
    model = overrides.model
    if overrides.provider is not None:
        name = model if model is not None else model_id
        model = f"{overrides.provider}/{name.partition('/')[2] or name}"
    return changed if model is None else _with_model(changed, surface, model)


def _json(asked: Sendable, surface: Surface, overrides: Overrides) -> Sendable:
    body = asked.body
    in_path = surface.name == "gemini"
    stream = overrides.stream if not in_path else None
    if overrides.patch is not UNSET or overrides.edits or stream is not None:
        value = parse(body)
        if isinstance(overrides.patch, dict):
            value = merge(value, overrides.patch)
        for edit in _bounded(overrides.edits):
            value = edited(value, edit)
        if stream is not None and isinstance(value, dict) and bool(cast("Object", value).get("stream")) != stream:
            value = cast("Object", value) | {"stream": stream}
            if not stream:
                value.pop("stream_options", None)  # providers refuse it without a stream
        body = write(value)
    target = asked.target
    if in_path and overrides.stream is not None:
        target = _streaming(target, stream=overrides.stream)
    return Sendable(target, asked.content_type, body)


def _with_model(asked: Sendable, surface: Surface, model: str) -> Sendable:
    path, mark, query = asked.target.partition("?")
    if surface.name == "gemini":
        found = _GEMINI.match(path)
        if found is None:
            raise CallerFault("invalid_field", "This endpoint's model cannot be exchanged.", param="model")
        path = f"{found[1]}models/{quote(model, safe='/@~')}:{found[3]}"
        return Sendable(path + mark + query, asked.content_type, asked.body)
    if isinstance(surface, AzureSurface):
        path, body = azure.plain(path, surface, asked.content_type, asked.body, model)
        return Sendable(path, asked.content_type, body)
    headers = {b"content-type": asked.content_type.encode("latin-1", "replace")}
    call = surface.peek(Request("POST", path, query, headers, asked.body))
    start, end = call.model_span or (0, 0)
    if call.model_span is None:
        raise CallerFault("invalid_field", "This request names its model where it cannot be exchanged.", param="model")
    if is_form(asked.content_type):
        return Sendable(asked.target, asked.content_type, asked.body[:start] + model.encode() + asked.body[end:])
    return Sendable(asked.target, asked.content_type, splice_model(asked.body, (start, end), model))


def _streaming(target: str, *, stream: bool) -> str:
    """Gemini says in its path whether it streams; we ask for an event stream, as every SDK does."""
    path, _, query = target.partition("?")
    rest = [part for part in query.split("&") if part and not part.startswith("alt=")]
    if stream:
        path, rest = path.replace(":generateContent", ":streamGenerateContent"), [*rest, "alt=sse"]
    else:
        path = path.replace(":streamGenerateContent", ":generateContent")
    return path + ("?" + "&".join(rest) if rest else "")


def _form(asked: Sendable, overrides: Overrides) -> Sendable:
    """A form whose text fields are exchanged, added or (null) removed; files stay as they are."""
    if overrides.edits:
        raise CallerFault("invalid_field", "A form has no JSON pointers; use patch with its fields.", param="edits")
    fields: Object = dict(overrides.patch) if isinstance(overrides.patch, dict) else {}
    if overrides.stream is not None:
        fields["stream"] = "true" if overrides.stream else "false"
    body = asked.body
    boundary = boundary_of(asked.content_type)
    for name, value in fields.items():
        if value is not None and not isinstance(value, str | int | float | bool):
            raise CallerFault("invalid_field", "A form's field is text, a number or a boolean.", param=f"patch.{name}")
        body = _with_field(body, boundary, name, value)
    return Sendable(asked.target, asked.content_type, body)


def _with_field(body: bytes, boundary: bytes, name: str, value: object) -> bytes:
    found = [part for part in parts_of(body, boundary) if part.name == name]
    if any(part.is_file for part in found):
        raise CallerFault("invalid_field", "A file of a form cannot be exchanged.", param=f"patch.{name}")
    written = (value if isinstance(value, str) else json.dumps(value)).encode()
    delimiter = b"\r\n--" + boundary
    if delimiter in b"\r\n" + written or re.search(r'[\r\n"]', name):
        raise CallerFault("invalid_field", "This field cannot stand in the form.", param="patch")
    for part in reversed(found):
        if value is not None:
            body = body[: part.start] + written + body[part.end :]
        else:
            at = (b"\r\n" + body).rindex(delimiter, 0, part.start)  # its own delimiter, counted with the CRLF before
            body = body[: max(at - 2, 0)] + body[part.end + (0 if at else 2) :]
    if not found and value is not None:
        end = body.rindex(delimiter + b"--")
        head = b'%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b' % (delimiter, name.encode(), written)
        body = body[:end] + head + body[end:]
    return body


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396: members of ``patch`` replace, null removes, objects are merged, everything else is taken whole."""
    if not isinstance(patch, dict):
        return patch
    result: Object = dict(cast("Object", target)) if isinstance(target, dict) else {}
    for name, value in cast("Object", patch).items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def edited(document: Any, edit: Edit) -> Any:
    """``document`` with one edit, itself unchanged. Raises :class:`CallerFault` when the place is not there."""
    tokens = pointer(edit.path)
    if not tokens:
        if edit.op == "remove":
            raise CallerFault("invalid_field", "The whole body cannot be removed.", param=edit.path)
        return edit.value
    return _edited(document, tokens, edit)


def pointer(path: str) -> list[str]:
    """The tokens of a JSON pointer (RFC 6901)."""
    if (path and not path.startswith("/")) or re.search(r"~(?![01])", path):
        raise CallerFault("invalid_field", "A JSON pointer begins with / and escapes ~ as ~0, / as ~1.", param="edits")
    return split(path)


def _edited(value: Any, tokens: list[str], edit: Edit) -> Any:
    token, rest = tokens[0], tokens[1:]
    if isinstance(value, dict):
        members = dict(cast("Object", value))
        if token not in members and (rest or edit.op != "add"):
            raise _nowhere(edit)
        if rest:
            members[token] = _edited(members[token], rest, edit)
        elif edit.op == "remove":
            del members[token]
        else:
            members[token] = edit.value
        return members
    if isinstance(value, list):
        return _edited_list(list(cast("list[Any]", value)), token, rest, edit)
    raise _nowhere(edit)


def _edited_list(items: list[Any], token: str, rest: list[str], edit: Edit) -> list[Any]:
    if token == "-" and not rest and edit.op == "add":  # noqa: S105  # RFC 6901's name of the place after the last
        return [*items, edit.value]
    if _INDEX.fullmatch(token) is None:
        raise _nowhere(edit)
    index = int(token)
    if index > len(items) or (index == len(items) and (rest or edit.op != "add")):
        raise _nowhere(edit)
    if rest:
        items[index] = _edited(items[index], rest, edit)
    elif edit.op == "add":
        items.insert(index, edit.value)
    elif edit.op == "remove":
        del items[index]
    else:
        items[index] = edit.value
    return items


def _nowhere(edit: Edit) -> CallerFault:
    return CallerFault("invalid_field", "The captured request has nothing at this place.", param=edit.path)


def _bounded(edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    if len(edits) > EDITS_MAX:
        raise CallerFault("invalid_field", f"At most {EDITS_MAX} edits.", param="edits")
    return edits


class _Number(Struct, frozen=True):
    """A fraction as it was written."""

    text: str


def parse(body: bytes) -> Any:
    """A JSON body, its fractions in their own spelling. Raises :class:`CallerFault` ``invalid_json``."""
    try:
        return json.loads(body, parse_float=_Number)
    except (ValueError, RecursionError) as error:
        raise CallerFault("invalid_json", "The captured request is no JSON that can be edited.") from error


def write(value: Any) -> bytes:
    """Compact JSON in UTF-8, numbers in their own spelling; half surrogate pairs stay escapes."""
    text = _text(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text).encode()


def _text(value: Any) -> str:
    if isinstance(value, _Number):
        return value.text
    if isinstance(value, dict):
        members = cast("Object", value).items()
        return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{_text(part)}" for name, part in members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text(part) for part in cast("list[Any]", value)) + "]"
    return json.dumps(value, ensure_ascii=False)
