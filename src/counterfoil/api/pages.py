"""``/docs``: the OpenAPI document as one page, whole in itself.

FastAPI's own page loads its scripts from a public network, which a gateway inside a company often cannot reach and an
auditor does not want; this one is made here from the same document, without a script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

_PROTOCOLS: Final = {"openai": "OpenAI", "anthropic": "Anthropic", "google": "Google"}
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_STYLE: Final = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#2a7ae2}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1rem 1.5rem 4rem}
h1{margin:.5rem 0 0}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
code,.path{font-family:ui-monospace,monospace;font-size:.92em;overflow-wrap:anywhere}a{color:var(--accent)}
details{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0}
summary{cursor:pointer;padding:.5rem .75rem}summary:hover{background:var(--soft)}
details>div{padding:.25rem .75rem .75rem}
.method{display:inline-block;min-width:4.2em;font-weight:700;font-size:.8em;letter-spacing:.05em}
table{border-collapse:collapse;width:100%;font-size:.92em;margin:.5rem 0}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
.soft{opacity:.7}
"""


def page(document: dict[str, Any], calls: Sequence[tuple[str, str]] = ()) -> str:
    """The page for an OpenAPI document, and for the ``calls``: paths whose bodies are a provider's own, by protocol."""
    info = document["info"]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(info['title'])}: API</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])} <span class=soft>{escape(info['version'])}</span></h1>",
            f"<p>{escape(info.get('description', ''))}</p>",
            '<p>The same for programs: <a href="/openapi.json">/openapi.json</a></p>',
            *_calls(calls),
            *_operations(document),
            "<h2 id=schemas>Schemas</h2>",
            *(_schema(name, schema) for name, schema in sorted(_schemas(document).items())),
            "</body></html>",
        ]
    )


def _calls(calls: Sequence[tuple[str, str]]) -> Iterator[str]:
    if not calls:
        return
    yield "<h2>Calls</h2><p>Bodies and answers are the provider's own. The record of a call is under the id in the "
    yield "answer's header <code>x-request-id</code>.</p>"
    rows = [
        (
            f"<span class=method>POST</span> <span class=path>{escape(path)}</span>",
            _PROTOCOLS.get(protocol, escape(protocol)),
        )
        for path, protocol in calls
    ]
    yield _table(("path", "protocol"), rows)


def _schemas(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("components", {}).get("schemas", {})


def _operations(document: dict[str, Any]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                tag = (item[method].get("tags") or ["other"])[0]
                groups.setdefault(tag, []).append(_operation(method, path, item[method]))
    for tag, operations in groups.items():
        yield f"<h2>{escape(tag.capitalize())}</h2>"
        yield from operations


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    summary = escape(operation.get("summary", ""))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    parts = [
        f"<details><summary><span class=method>{method.upper()}</span> <span class=path>{escape(path)}</span> ",
        f"<span class=soft>{summary}</span></summary><div><p>{escape(operation.get('description', ''))}</p>",
        _parameters(operation.get("parameters", [])),
        f"<p>Body: {_type(body)}</p>" if body else "",
        _responses(operation.get("responses", {})),
        "</div></details>",
    ]
    return "".join(parts)


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = [
        (
            f"<code>{escape(one['name'])}</code>{'' if one.get('required') else ' <span class=soft>optional</span>'}",
            _type(one.get("schema", {})),
            escape(one.get("description") or one.get("schema", {}).get("description", "")),
        )
        for one in parameters
    ]
    return _table(("parameter", "type", "meaning"), rows) if rows else ""


def _responses(responses: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = []
    for status, response in responses.items():
        contents: list[dict[str, Any]] = list(response.get("content", {}).values())
        content = contents[0] if contents else {}
        rows.append((escape(status), _type(content.get("schema", {})), escape(response.get("description", ""))))
    return _table(("status", "body", "meaning"), rows)


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (
            f"<code>{escape(field)}</code>{'' if field in required else ' <span class=soft>optional</span>'}",
            _type(prop),
            escape(prop.get("description", "")),
        )
        for field, prop in schema.get("properties", {}).items()
    ]
    inside = _table(("field", "type", "meaning"), rows) if rows else f"<p>{_type(schema)}</p>"
    said = escape(schema.get("description", "").split("\n", 1)[0])
    return (
        f'<details id="{escape(name)}"><summary class=path>{escape(name)}</summary>'
        f"<div><p>{said}</p>{inside}</div></details>"
    )


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words, with links to the named ones."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#{name}">{name}</a>'
    for many, word in (("anyOf", " or "), ("oneOf", " or "), ("allOf", "")):
        if many in schema:
            return word.join(_type(one) for one in schema[many])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "any")))


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
