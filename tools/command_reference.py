# ruff: noqa: INP001 - a script, found by its path
"""Writes what is generated of ``docs/reference/cli.md``: every command with its options.

Run it after a change of a command; a test fails until it was.
"""

from __future__ import annotations

import re
from pathlib import Path

from counterfoil.cli.main import app

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
MARKS = re.compile(r"(<!-- commands, generated -->\n).*(<!-- end of commands -->)", re.DOTALL)
NOISE = re.compile(r" \*\[default: (?:False|\(\))\]\*|, --empty-[a-z-]+|^\s*- \[.*\n", re.MULTILINE)
# The name in a usage line depends on how this process was started; the heading above it does not.
USAGE = re.compile(
    r"^(#+ (counterfoil.*)\n\n```console\n).*?((?: \[OPTIONS\]| COMMAND| \[?[A-Z][A-Z_-]+\]?)*\n```)", re.MULTILINE
)


def commands() -> str:
    """Give every command as Markdown, from its own help."""
    text = app.generate_docs(output_format="markdown", recursive=True, heading_level=2, usage_name="counterfoil")
    body = text[text.index("\n### ") :]
    return re.sub(r"\n{3,}", "\n\n", USAGE.sub(r"\1\2\3", NOISE.sub("", body))).strip()


def rendered(page: str) -> str:
    """Give ``page`` with the part between the marks made anew."""
    return MARKS.sub(lambda match: f"{match[1]}\n{commands()}\n\n{match[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text("utf-8")), "utf-8")
