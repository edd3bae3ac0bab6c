# ruff: noqa: INP001 - a script, found by its path
"""Writes what is generated of the configuration's documents: the tables of its page, and the JSON Schema.

Run it after a change of ``src/counterfoil/config/model.py`` or ``known.py``; a test fails until it was.
"""

from __future__ import annotations

import re
from pathlib import Path

from counterfoil.config import reference
from counterfoil.config.schema import document

DOCS = Path(__file__).parents[1] / "docs"


def rendered(text: str) -> str:
    """Give ``text`` with each table between its two marks made anew."""
    for name, table in (("keys", reference.keys()), ("providers", reference.providers())):
        marks = rf"(<!-- {name}, generated -->\n).*?(<!-- end of {name} -->)"
        text = re.sub(marks, lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text, flags=re.DOTALL)
    return text


def main() -> None:
    """Write both documents."""
    page = DOCS / "configuration.md"
    page.write_text(rendered(page.read_text("utf-8")), "utf-8")
    (DOCS / "counterfoil.schema.json").write_bytes(document())


if __name__ == "__main__":
    main()
