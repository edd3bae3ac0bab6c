"""The tree keeps the rules that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted((REPOSITORY / "src").rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("test_*.py"))
LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
SLEEPS = {"time.sleep", "asyncio.sleep", "sleep"}
# Put together here, so that this file does not hold what it looks for.
HOSTS = tuple("".join(parts) for parts in (("py", "pi.org"), ("files.python", "hosted"), ("registry.", "npmjs")))


def relative(path: Path) -> str:
    """Give a path as the repository knows it."""
    return str(path.relative_to(REPOSITORY))


def tracked() -> list[Path]:
    """Give every file that is part of the project, or skip where this is no checkout."""
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout")
    return [path for name in listed.stdout.splitlines() if (path := REPOSITORY / name).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_modules_and_functions_stay_small(path: Path) -> None:
    """A module has at most 600 lines; a function at most 60, its docstring not counted."""
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or 0) - node.lineno + 1 - (documented.count("\n") + 1 if documented else 0)
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


def test_no_module_has_a_vague_name() -> None:
    """No module is called by a word that says nothing."""
    assert not [relative(path) for path in SOURCES if path.stem in VAGUE or path.parent.name in VAGUE]


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_no_test_sleeps(path: Path) -> None:
    """A test waits for something to happen, never for time to pass, and with the patience that all have in common."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    slept = [node.lineno for node in calls if ast.unparse(node.func) in SLEEPS and ast.unparse(node.args[0]) != "0"]
    assert not slept, f"sleeps in lines {slept}: emulators.waiting has what waits"


def test_nothing_names_a_package_host() -> None:
    """No file, lock files included, names the host of a package index, so that any mirror will do."""
    found = [
        relative(path) for path in tracked() if any(host in path.read_text(errors="replace").lower() for host in HOSTS)
    ]
    assert not found


def test_no_merge_was_left_unfinished() -> None:
    """No file holds the lines between which two versions of it stand."""
    marks = tuple(letter * 7 + " " for letter in "<>|")
    found = [
        f"{relative(path)}:{number}"
        for path in tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if line.startswith(marks)
    ]
    assert not found


@pytest.mark.parametrize("lock", LOCKS, ids=relative)
def test_every_requirement_has_a_hash(lock: Path) -> None:
    """A lock holds exact versions with hashes, and nothing else."""
    text = re.sub(r"#.*", "", lock.read_text()).replace("\\\n", " ")
    requirements = [line.strip() for line in text.splitlines() if line.strip()]
    assert requirements
    for requirement in requirements:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;]+( ;[^-]+)?( +--hash=sha256:[0-9a-f]{64})+", requirement), (
            requirement
        )


def test_the_locks_hold_every_dependency() -> None:
    """Each dependency of pyproject.toml, the extras' too, is in its lock, within its range's first number."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, wanted in {"run": project["dependencies"], **{extra: extras[extra] for extra in extras}}.items():
        lock = REPOSITORY / f"requirements/{name}.txt"
        if not lock.exists():
            continue
        locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE))
        for requirement in wanted:
            package = re.split(r"[\[<>=!~ ]", requirement)[0].lower()
            assert package in locked, f"{package} is not in {lock.name}: run make lock"
