"""What a configuration amounts to: layers, variables, known providers, short spellings."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfoil import config
from counterfoil.config import KNOWN_PROVIDERS, Config, RouteConfig, TargetConfig
from counterfoil.config.tree import Branch, Origin
from counterfoil.config.variables import layer
from counterfoil.errors import ConfigError

DESIGN = """\
data: ./counterfoil-data        # ledger, keys, journal; created on first start
providers:
  openai: {api_key: ${OPENAI_API_KEY}}                 # known names need no base_url
  local:  {type: openai, base_url: http://127.0.0.1:9001/v1/, api_key: none, prices: openai}
models:                                                # optional aliases and fallbacks
  fast: [openai/gpt-4o-mini, local/gpt-4o-mini]
capture: {default: off, retention_days: 30}
ledger: {durability: fsync}
"""


def test_the_documented_example_is_read() -> None:
    """Unquoted placeholders inside braces, `off` as a word, a trailing slash: all as they are meant."""
    found = config.parse(DESIGN, "c.yaml", {"OPENAI_API_KEY": "sk-1"})
    assert found.providers["openai"].api_key == "sk-1"
    assert found.providers["openai"].base_url == "https://api.openai.com/v1"
    assert found.providers["local"].base_url == "http://127.0.0.1:9001/v1"
    assert found.providers["local"].api_key is None
    assert found.providers["local"].prices == "openai"
    assert found.models["fast"] == RouteConfig([TargetConfig("openai/gpt-4o-mini"), TargetConfig("local/gpt-4o-mini")])
    assert found.capture.default == "off"


def test_the_layers_win_in_order() -> None:
    """Command line over environment over file over default."""
    text = "port: 1\nhost: file\nworkers: 2\n"
    environ = {"COUNTERFOIL_PORT": "3", "COUNTERFOIL_HOST": "environment"}
    found = config.parse(text, "c.yaml", environ, {"port": 4, "host": None})
    assert (found.port, found.host, found.workers, found.log.level) == (4, "environment", 2, "info")


def test_what_a_layer_replaced_is_not_expanded() -> None:
    """A variable is needed only where its value is used."""
    found = config.parse("host: ${UNSET}\n", "c.yaml", {}, {"host": "::1"})
    assert found.host == "::1"


@pytest.mark.parametrize(
    ("text", "environ", "host"),
    [
        pytest.param("${A}", {"A": "x"}, "x", id="set"),
        pytest.param("${A:-d}", {}, "d", id="default"),
        pytest.param("${A:-d}", {"A": ""}, "d", id="default for empty"),
        pytest.param("${A:-d}", {"A": "x"}, "x", id="default not needed"),
        pytest.param("${A:-}", {}, "", id="empty default"),
        pytest.param("a-${A}-${B:-b}", {"A": "x"}, "a-x-b", id="inside a text"),
        pytest.param("$${A}", {}, "${A}", id="escaped"),
        pytest.param("${A}", {"A": "${B}"}, "${B}", id="not expanded twice"),
        pytest.param("${A}", {"A": "null"}, "null", id="never null"),
        pytest.param("${A:-http://h:1/,[x]#y}", {}, "http://h:1/,[x]#y", id="default full of YAML"),
    ],
)
@pytest.mark.parametrize("style", ["host: {}\n", 'host: "{}"\n', "host: '{}'\n", "host: >-\n  {}\n"], ids=str.strip)
def test_placeholders(text: str, environ: dict[str, str], host: str, style: str) -> None:
    """A placeholder reads the same in every style of YAML scalar."""
    assert config.parse(style.format(text), "c.yaml", environ).host == host


def test_a_placeholder_in_place_of_a_number() -> None:
    """A variable may hold a number."""
    assert config.parse("port: ${PORT:-9000}\n", "c.yaml", {}).port == 9000


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        pytest.param("openai/a", RouteConfig([TargetConfig("openai/a")]), id="bare"),
        pytest.param(
            "[openai/a, openai/b]", RouteConfig([TargetConfig("openai/a"), TargetConfig("openai/b")]), id="list"
        ),
        pytest.param(
            "[openai/a, {target: openai/b, weight: 3}]",
            RouteConfig([TargetConfig("openai/a"), TargetConfig("openai/b", 3)], "weighted"),
            id="weights",
        ),
        pytest.param(
            "{targets: [{target: openai/b, weight: 3}], strategy: ordered}",
            RouteConfig([TargetConfig("openai/b", 3)]),
            id="in full",
        ),
        pytest.param(
            "openai/meta/llama:free", RouteConfig([TargetConfig("openai/meta/llama:free")]), id="model with a slash"
        ),
    ],
)
def test_ways_of_writing_a_route(written: str, expected: RouteConfig) -> None:
    """The short ways of writing an alias mean the same as the long one."""
    text = f"providers: {{openai: {{api_key: sk}}}}\nmodels: {{fast: {written}}}\n"
    assert config.parse(text, "c.yaml", {}).models["fast"] == expected


@pytest.mark.parametrize(
    ("variable", "value", "path", "expected"),
    [
        pytest.param("COUNTERFOIL_DATA", "/d", "data", Path("/d"), id="data"),
        pytest.param("COUNTERFOIL_CAPTURE_RETENTION_DAYS", "7", "capture.retention_days", 7, id="retention"),
        pytest.param("COUNTERFOIL_LIMITS_BODY_BYTES", "10", "limits.body_bytes", 10, id="limit"),
        pytest.param(
            "COUNTERFOIL_SERVER_TRUSTED_PROXIES",
            "::1, 10.0.0.0/8",
            "server.trusted_proxies",
            ["::1", "10.0.0.0/8"],
            id="list",
        ),
        pytest.param("COUNTERFOIL_SERVER_ACCESS_LOG", "true", "server.access_log", True, id="boolean"),
        pytest.param("COUNTERFOIL_PROVIDERS_OPENAI_API_KEY", "sk-{2}", "providers.openai.api_key", "sk-{2}", id="key"),
        pytest.param("COUNTERFOIL_PROVIDERS_X_AI_API_KEY", "k", "providers.x-ai.api_key", "k", id="known name"),
        pytest.param(
            "COUNTERFOIL_PROVIDERS_MY_BOX_2_PRICES", "openai", "providers.my.box_2.prices", "openai", id="name in file"
        ),
        pytest.param(
            "COUNTERFOIL_PROVIDERS_OPENAI_TIMEOUTS_IDLE_SECONDS",
            "5",
            "providers.openai.timeouts.idle_seconds",
            5,
            id="deep",
        ),
        pytest.param(
            "COUNTERFOIL_PROVIDERS_OPENAI_HEADERS_X_TENANT",
            "a",
            "providers.openai.headers",
            {"x-tenant": "a"},
            id="header",
        ),
    ],
)
def test_every_key_is_a_variable(variable: str, value: str, path: str, expected: object) -> None:
    """A variable's name is read field by field; free names are matched with those that exist."""
    text = "providers:\n  openai: {api_key: sk}\n  my.box_2: {type: openai, base_url: http://h/v1}\n"
    found: object = config.parse(text, "c.yaml", {variable: value})
    names = path.replace("my.box_2", "MINE").split(".")
    for name in ["my.box_2" if name == "MINE" else name for name in names]:
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == expected


def test_a_provider_made_of_variables() -> None:
    """A name that nothing else knows is the shortest after which the rest is a key."""
    environ = {
        "COUNTERFOIL_PROVIDERS_MY_SERVER_BASE_URL": "http://h:1/v1",
        "COUNTERFOIL_PROVIDERS_MY_SERVER_TYPE": "openai",
        "COUNTERFOIL_MODELS_BIG": "my-server/a, my-server/b",
        "COUNTERFOIL_MODELS_SMALL": "{targets: [my-server/a], strategy: weighted}",
    }
    found = config.parse("port: 1\n", "c.yaml", environ)
    assert found.providers["my-server"].base_url == "http://h:1/v1"
    assert [target.target for target in found.models["big"].targets] == ["my-server/a", "my-server/b"]
    assert found.models["small"].strategy == "weighted"


@pytest.mark.parametrize(
    "variable",
    [
        "COUNTERFOIL_URL",
        "COUNTERFOIL_KEY",
        "COUNTERFOIL_CONFIG",
        "COUNTERFOIL_TEST_DATA",
        "COUNTERFOIL_SERVICE_HOST",
        "COUNTERFOIL_SERVICE_PORT_HTTP",
        "COUNTERFOIL_PORT_8080_TCP_ADDR",
    ],
)
def test_variables_that_are_no_keys(variable: str) -> None:
    """Documented variables, and those a container platform makes for a service of our name, are passed over."""
    assert config.parse("port: 1\n", "c.yaml", {variable: "tcp://10.0.0.1:8080"}).port == 1


def test_a_service_named_counterfoil_does_not_set_the_port() -> None:
    """Kubernetes sets COUNTERFOIL_PORT to an address; that is not a port to listen on."""
    assert config.parse("port: 1\n", "c.yaml", {"COUNTERFOIL_PORT": "tcp://10.0.0.1:8080"}).port == 1


@given(st.text(alphabet="ABCDEFGHIKLMNOPRSTUVWXY_", max_size=40), st.text(max_size=10))
def test_any_variable_is_a_key_or_an_error(rest: str, value: str) -> None:
    """No name and no value makes the reading of variables fail in any other way than with a ConfigError."""
    with suppress(ConfigError):
        layer({f"COUNTERFOIL_{rest}": value}, Branch({}, Origin("file")))


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    """No file makes the loader fail in any other way than with a ConfigError."""
    with suppress(ConfigError):
        config.parse(text, "c.yaml", {})


def test_the_usual_variables_make_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file, every known provider whose usual variable is set can be called; the first variable set counts."""
    monkeypatch.chdir(tmp_path)
    found = config.load(None, {"OPENAI_API_KEY": "sk-1", "GOOGLE_API_KEY": "g", "GROQ_API_KEY": ""}, {})
    assert {name: provider.api_key for name, provider in found.providers.items()} == {"openai": "sk-1", "google": "g"}


def test_a_file_that_names_providers_names_them_all() -> None:
    """With providers in the file the usual variables add none."""
    found = config.parse("providers: {openai: {api_key: sk}}\n", "c.yaml", {"GROQ_API_KEY": "g"})
    assert set(found.providers) == {"openai"}


def test_a_known_name_takes_its_usual_variable() -> None:
    """A known provider without a key takes its usual variable."""
    found = config.parse("providers:\n  anthropic:\n", "c.yaml", {"ANTHROPIC_API_KEY": "sk-a"})
    assert (found.providers["anthropic"].type, found.providers["anthropic"].api_key) == ("anthropic", "sk-a")


def test_the_usual_key_does_not_go_to_another_address() -> None:
    """A known name at an address of the operator's own gets only the key that was written for it."""
    text = "providers:\n  openai: {base_url: http://h/v1}\n"
    assert config.parse(text, "c.yaml", {"OPENAI_API_KEY": "sk-1"}).providers["openai"].api_key is None


def test_a_providers_timeouts_lie_on_the_general_ones() -> None:
    """A provider names only what differs."""
    text = "timeouts: {idle_seconds: 7}\nproviders: {openai: {api_key: k, timeouts: {total_seconds: 9}}}\n"
    found = config.parse(text, "c.yaml", {}).providers["openai"].timeouts
    assert (found.idle_seconds, found.total_seconds, found.connect_seconds) == (7, 9, 10)


def test_paths_start_where_they_were_written(tmp_path: Path) -> None:
    """A relative path in a file starts at the file's folder; others at the working folder."""
    file = tmp_path / "c.yaml"
    file.write_text("data: here\n")
    assert config.load(file, {}, {}).data == tmp_path / "here"
    assert config.load(file, {"COUNTERFOIL_DATA": "there"}, {}).data == Path("there")
    assert config.load(file, {}, {"data": Path("/elsewhere")}).data == Path("/elsewhere")


@pytest.mark.parametrize(
    ("option", "variable", "in_file", "expected"),
    [
        pytest.param(Path("o"), "v", True, Path("o"), id="option"),
        pytest.param(None, "v", True, Path("v"), id="variable"),
        pytest.param(None, None, True, Path("f"), id="file"),
        pytest.param(None, None, False, Path("counterfoil-data"), id="default"),
    ],
)
def test_the_data_folder_alone(
    option: Path | None,
    variable: str | None,
    in_file: bool,
    expected: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Commands that need only the folder read only that key: an unset variable elsewhere does not stop them."""
    monkeypatch.chdir(tmp_path)
    if in_file:
        Path("counterfoil.yaml").write_text("data: f\nproviders: {openai: {api_key: ${UNSET}}}\n")
    environ = {} if variable is None else {"COUNTERFOIL_DATA": variable}
    assert config.data_folder(None, environ, option) == expected


def test_a_configuration_survives_the_way_to_a_worker() -> None:
    """Encoded and decoded, a configuration is the same, paths included."""
    found = config.parse(DESIGN, "c.yaml", {"OPENAI_API_KEY": "sk-1"})
    assert config.decode(config.encode(found)) == found


def test_no_key_is_shown() -> None:
    """A configuration can be logged whole: it does not show keys or headers."""
    text = "providers: {openai: {api_key: sk-secret, headers: {x-key: hush}}}\n"
    shown = repr(config.parse(text, "c.yaml", {}))
    assert "sk-secret" not in shown
    assert "hush" not in shown


@pytest.mark.parametrize("name", KNOWN_PROVIDERS)
def test_every_known_provider_can_be_configured(name: str) -> None:
    """A known name needs a key and nothing else."""
    found = config.parse(f"providers: {{{name}: {{api_key: k}}}}\n", "c.yaml", {})
    assert found.providers[name].base_url == KNOWN_PROVIDERS[name].base_url


def test_the_defaults_are_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be configured."""
    monkeypatch.chdir(tmp_path)
    assert config.load(None, {}, {}) == Config()
