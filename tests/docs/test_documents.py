"""The documents say what is true: their links lead somewhere, their commands exist, their examples work."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from counterfoil import config

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src/counterfoil"
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(document: Path) -> set[str]:
    """Give the anchors of a document's headings, as they are usually made."""
    headings = re.findall(r"^#+ +(.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def blocks(document: str, language: str) -> Iterator[str]:
    """Give the code blocks of one language in a document."""
    text = (REPOSITORY / document).read_text()
    yield from re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """A link to a file of this repository leads to a file that is there, and to a heading that it has."""
    for link in LINK.findall(document.read_text()):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


def test_the_architecture_names_every_room() -> None:
    """The drawing of the rooms has every package of the source, and none that is not there."""
    [drawing] = re.findall(
        r"## The rooms.*?```\n(.*?)```", (REPOSITORY / "docs/architecture.md").read_text(), re.DOTALL
    )
    rooms = {path.stem for path in SOURCE.iterdir() if path.is_dir() or path.suffix == ".py"}
    rooms -= {"__init__", "__main__", "__pycache__"}
    drawn = set(re.findall(r"^   ([a-z ·│●]+?)(?: {2,}|$)", drawing, re.MULTILINE))
    names = {name for line in drawn for name in re.findall(r"[a-z]+", line)}
    assert names == rooms


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_exists(document: str) -> None:
    """A make target that a document names is in the Makefile."""
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z]+)", "\n".join(blocks(document, "bash"))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target} does not exist"


def test_the_readmes_configuration_is_one() -> None:
    """Every configuration in the README is accepted by the loader."""
    examples = list(blocks("README.md", "yaml"))
    assert examples
    for example in examples:
        config.parse(example, "README.md", {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"})


def test_the_readmes_python_is_python() -> None:
    """Every Python example in the README compiles."""
    examples = list(blocks("README.md", "python"))
    assert examples
    for example in examples:
        ast.parse(example)


def test_the_readmes_commands_exist() -> None:
    """Every command that the README names answers to ``--help``."""
    named = set(re.findall(r"\bcounterfoil ((?:[a-z-]+ )?[a-z-]+)", "\n".join(blocks("README.md", "bash"))))
    assert named
    for command in sorted(named):
        words = [word for word in command.split() if not word.startswith("-")]
        done = subprocess.run(
            [sys.executable, "-m", "counterfoil", *words, "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"counterfoil {command}: {done.stderr}"
