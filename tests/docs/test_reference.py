"""The reference pages say everything there is: every field, code, path, metric and command."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from counterfoil.api import answers, schema
from counterfoil.api.app import build, prefixes
from counterfoil.api.parts import ControlParts, Figures
from counterfoil.api.status import router
from counterfoil.errors import CallerFault, GatewayFault, UpstreamFault
from counterfoil.ledger.kept import Unavailable
from counterfoil.record.charge import CostState, LineState
from counterfoil.record.record import CapturePolicy, CaptureState
from counterfoil.record.usage import UsageSource
from counterfoil.tenancy.keys import KeyReason

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
NOTHING = cast("Any", None)  # documents are made without looking at the parts
SOMETHING = cast("Any", object())


def page(name: str) -> str:
    """The text of a reference page."""
    return (REFERENCE / name).read_text("utf-8")


@pytest.mark.parametrize("struct", list(schema.MEANINGS))
def test_every_field_of_a_record_is_in_its_page(struct: str) -> None:
    """A row for each field of the record and of everything inside it."""
    missing = [field for field in schema.MEANINGS[struct] if f"\n| `{field}` |" not in page("record.md")]
    assert missing == []


@pytest.mark.parametrize(
    "words", [CostState, LineState, CaptureState, CapturePolicy, UsageSource, Unavailable], ids=str
)
def test_every_word_a_field_can_hold_is_in_its_page(words: Any) -> None:
    """A reader who meets a state finds what it means."""
    assert [word.value for word in words if f"`{word.value}`" not in page("record.md")] == []


@pytest.mark.parametrize("branch", [CallerFault, UpstreamFault, GatewayFault])
def test_every_code_of_a_call_is_in_the_error_page(branch: Any) -> None:
    """With its status, whether a retry can help, and its meaning, as the code has them."""
    for code, kind in branch.kinds.items():
        retry = "yes" if kind.retryable else "no"
        assert f"| `{branch.branch}:{code}` | {kind.status} | {retry} | {kind.message} |" in page("errors.md")


def test_every_code_of_the_control_plane_is_in_the_error_page() -> None:
    """With its status and meaning."""
    for code, (status, meaning) in answers.ERRORS.items():
        assert f"| `{code}` | {status} | {meaning} |" in page("errors.md")


def test_every_reason_of_a_401_is_in_the_error_page() -> None:
    """A developer whose key is refused finds what to do."""
    assert [reason for reason in KeyReason if f"\n| `{reason.value}` |" not in page("errors.md")] == []


def test_the_error_page_has_no_codes_of_the_past() -> None:
    """What it lists exists."""
    known = {
        f"{branch.branch}:{code}" for branch in (CallerFault, UpstreamFault, GatewayFault) for code in branch.kinds
    }
    known |= {*answers.ERRORS, *(reason.value for reason in KeyReason)}
    assert set(re.findall(r"^\| `([a-z_:]+)` \|", page("errors.md"), re.MULTILINE)) == known | {"error"}


def test_every_path_and_parameter_is_in_the_api_page() -> None:
    """As method and path, and every query parameter by its name; and no path that is not served."""
    control = build(
        ControlParts(
            reader=NOTHING,
            directory=NOTHING,
            admin=NOTHING,
            book=NOTHING,
            erase=NOTHING,
            evidence=SOMETHING,
            verifications=SOMETHING,
        )
    )
    served: set[str] = {"GET /docs", "GET /openapi.json"}
    for path, item in control.openapi()["paths"].items():
        for method, operation in item.items():
            served.add(f"{method.upper()} {path}")
            if path.startswith("/v1/generations"):
                names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
                assert [name for name in names if f"`{name}" not in page("api.md")] == [], path
    written = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?]*)", page("api.md")))
    assert written == served
    paths = [path for path in control.openapi()["paths"] if path.startswith("/v1")]
    assert prefixes(control) == {"/".join(path.split("/")[:3]) for path in paths}


def test_every_metric_is_in_its_page() -> None:
    """By the name a scraper sees."""
    text = metrics_text()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert set(re.findall(r"^\| `(counterfoil_[a-z_]+)` \|", page("metrics.md"), re.MULTILINE)) == names


def metrics_text() -> str:
    """A scrape of figures that are all zero."""
    endpoint = next(route.endpoint for route in router(NOTHING, Figures).routes if route.path == "/metrics")  # type: ignore[attr-defined]
    coroutine = endpoint()
    try:
        coroutine.send(None)
    except StopIteration as done:
        return bytes(done.value.body).decode()
    raise AssertionError


def test_the_page_of_commands_is_up_to_date() -> None:
    """Every command and option is in it, as the command line itself has them."""
    found = importlib.util.spec_from_file_location("command_reference", ROOT / "tools" / "command_reference.py")
    assert found is not None
    assert found.loader is not None
    tool = importlib.util.module_from_spec(found)
    found.loader.exec_module(tool)
    assert page("cli.md") == tool.rendered(page("cli.md")), "run: python tools/command_reference.py"
    assert "### counterfoil generations show" in page("cli.md").replace("####", "###")


def test_the_record_in_the_page_adds_up() -> None:
    """The example is a record: its lines sum to its cost, and each is its quantity times its rate."""
    example = json.loads(page("record.md").split("```json\n", 1)[1].split("```", 1)[0])
    amounts = [line["quantity"] * line["unit_price_nanos"] // line["unit_size"] for line in example["pricing_lines"]]
    assert [line["amount_nanos"] for line in example["pricing_lines"]] == amounts
    assert example["cost_nanos"] == sum(amounts)
    assert set(example) <= set(schema.MEANINGS["GenerationRecord"])
