"""Every mistake in a configuration is one line that names its place and says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from counterfoil import config
from counterfoil.errors import ConfigError

GOOD = "providers:\n  openai: {api_key: sk-1}\n"

MISTAKES = [
    # The text of the file, the place, and what the error must say.
    pytest.param("", "c.yaml: the file is empty", id="empty"),
    pytest.param("# nothing\n", "c.yaml: the file is empty", id="comments only"),
    pytest.param("null\n", "c.yaml: the file is empty", id="null"),
    pytest.param("just text\n", "c.yaml:1: expected keys and values", id="not a mapping"),
    pytest.param("- a\n", "c.yaml:1: expected keys and values", id="a list"),
    pytest.param("port: 1\nhost: [a\n", "c.yaml:3: this is not valid YAML", id="open bracket"),
    pytest.param("port: 1\n\tworkers: 2\n", "c.yaml:2: this is not valid YAML", id="tab"),
    pytest.param("a: 1\n---\nb: 2\n", "c.yaml:2: this is not valid YAML", id="two documents"),
    pytest.param("host: \x07\n", "c.yaml: this is not valid YAML: it holds a character", id="control character"),
    pytest.param(
        "port: 1\nworkers: 2\nport: 3\n", "c.yaml:3: the key 'port' is written twice (first at c.yaml:1)", id="twice"
    ),
    pytest.param("[a]: 1\n", "c.yaml:1: a key must be a plain text", id="list as key"),
    pytest.param("host: !shout x\n", "c.yaml:1: the tag !shout is not known", id="tag"),
    pytest.param("host: !!python/name:os.system\n", "c.yaml:1: ", id="python tag"),
    pytest.param("a: &a [*a]\n", "the aliases (*name) make this endless", id="endless alias"),
    pytest.param("prot: 1\n", "c.yaml:1: prot: unknown key; did you mean port?", id="unknown top key"),
    pytest.param(
        GOOD + "  local:\n    type: openai\n    base_url: http://h/v1\n    api_kye: x\n",
        "c.yaml:6: providers.local.api_kye: unknown key; did you mean api_key?",
        id="unknown nested key",
    ),
    pytest.param(
        "providers:\n  openai: {api_ky: x}\n",
        "c.yaml:2: providers.openai.api_ky: unknown key; did you mean api_key?",
        id="misspelt key of a provider that needs one",
    ),
    pytest.param(
        "providers:\n  local:\n    typ: openai\n    base_url: http://h/v1\n",
        "c.yaml:3: providers.local.typ: unknown key; did you mean type?",
        id="misspelt type",
    ),
    pytest.param("zzzz: 1\n", "c.yaml:1: zzzz: unknown key; known here: data, host, port", id="unknown and far off"),
    pytest.param(
        "port: http\n", "c.yaml:1: port: expected a whole number, at least 0 and at most 65,535, got 'http'", id="word"
    ),
    pytest.param("port: 70000\n", "c.yaml:1: port: expected a whole number, at least 0", id="too large"),
    pytest.param("port: 8080.5\n", "c.yaml:1: port: expected a whole number", id="fraction"),
    pytest.param(
        "port:\n", "c.yaml:1: port: expected a whole number, at least 0 and at most 65,535, got nothing", id="nothing"
    ),
    pytest.param(
        "port: [1]\n", "c.yaml:1: port: expected a whole number, at least 0 and at most 65,535, got a list", id="list"
    ),
    pytest.param(
        "providers: [openai]\n", "c.yaml:1: providers: expected keys and values, got a list", id="providers list"
    ),
    pytest.param(
        "timeouts:\n  idle_seconds: 0\n",
        "c.yaml:2: timeouts.idle_seconds: expected a number, above 0",
        id="zero seconds",
    ),
    pytest.param("timeouts:\n  idle_seconds: nan\n", "c.yaml:2: timeouts.idle_seconds: expected a number", id="nan"),
    pytest.param(
        "capture:\n  default: some\n",
        "c.yaml:2: capture.default: expected full or metadata or off, got 'some'",
        id="choice",
    ),
    pytest.param("server:\n  access_log: maybe\n", "c.yaml:2: server.access_log: expected true or false", id="boolean"),
    pytest.param(
        "providers:\n  openai: {api_key: ${OPENAI_API_KEY}}\n",
        "c.yaml:2: providers.openai.api_key: the environment variable OPENAI_API_KEY is not set",
        id="unset variable",
    ),
    pytest.param('host: "${1X}"\n', "c.yaml:1: host: a ${…} here cannot be read", id="bad variable"),
    pytest.param(
        "providers:\n  openai:\n",
        "c.yaml:2: providers.openai.api_key: no key; write one, set OPENAI_API_KEY",
        id="no key",
    ),
    pytest.param(
        'providers:\n  openai: {api_key: ""}\n', "c.yaml:2: providers.openai.api_key: the key is empty", id="empty key"
    ),
    pytest.param(
        "providers:\n  openai:\n    api_key: |\n      sk-1\n      sk-2\n",
        "c.yaml:3: providers.openai.api_key: the key holds a space",
        id="key on two lines",
    ),
    pytest.param(
        "providers:\n  mine: {base_url: http://h/v1}\n",
        "c.yaml:2: providers.mine.type: this key is needed",
        id="no type",
    ),
    pytest.param(
        "providers:\n  mine: {type: openai}\n", "c.yaml:2: providers.mine.base_url: this key is needed", id="no address"
    ),
    pytest.param(
        "providers:\n  mine: {type: opnai, base_url: http://h}\n",
        "c.yaml:2: providers.mine.type: expected anthropic or google or openai, got 'opnai'",
        id="unknown type",
    ),
    pytest.param(
        "providers:\n  a/b: {type: openai, base_url: http://h}\n",
        "c.yaml:2: providers.a/b: a provider's name has letters",
        id="slash in a name",
    ),
    pytest.param(
        "providers:\n  none: {type: openai, base_url: http://h}\n",
        "c.yaml:2: providers.none: this name has a meaning in records",
        id="reserved name",
    ),
    *(
        pytest.param(
            f"providers:\n  mine: {{type: openai, base_url: '{address}'}}\n",
            f"c.yaml:2: providers.mine.base_url: {says}",
            id=f"address {address}",
        )
        for address, says in [
            ("ftp://h/v1", "expected an address that begins with http:// or https://"),
            ("h/v1", "expected an address"),
            ("http://", "expected an address"),
            ("http://h:99999/v1", "this is not a web address"),
            ("http://[::1/v1", "this is not a web address"),
            ("http://h/v1?x=1", "the address may not hold"),
            ("http://u:p@h/v1", "the address may not hold a user name"),
            ("http://h/v 1", "expected an address"),
        ]
    ),
    pytest.param(
        GOOD + "    \n  mine: {type: openai, base_url: http://h, headers: {Host: x}}\n",
        "c.yaml:4: providers.mine.headers.Host: this header belongs to the connection",
        id="reserved header",
    ),
    pytest.param(
        'providers:\n  mine:\n    type: openai\n    base_url: http://h\n    headers:\n      x-a: "b\\r\\nc: d"\n',
        "c.yaml:6: providers.mine.headers.x-a: a header's value may not hold line breaks",
        id="line break in a header",
    ),
    pytest.param(
        'providers:\n  mine:\n    type: openai\n    base_url: http://h\n    headers:\n      "a b": c\n',
        "c.yaml:6: providers.mine.headers.a b: this is not a header's name",
        id="bad header name",
    ),
    pytest.param(
        GOOD + "models:\n  fast:\n    - openai/a\n    - opnai/b\n",
        "c.yaml:6: models.fast: the target opnai/b names no configured provider; did you mean openai?",
        id="unknown target",
    ),
    pytest.param(
        GOOD + "models:\n  fast: gpt-4o\n",
        "c.yaml:4: models.fast.targets[0].target: expected provider/model, such as openai/gpt-4o-mini, got 'gpt-4o'",
        id="bare model",
    ),
    pytest.param(
        "playback:\n  ignore: [user]\n",
        "c.yaml:2: playback.ignore[0]: expected a JSON pointer, such as /user",
        id="pointer",
    ),
    pytest.param(
        "server:\n  trusted_proxies: [127.0.0.1, the-proxy]\n",
        "c.yaml:2: server.trusted_proxies[1]: expected an address or a network",
        id="no proxy",
    ),
    pytest.param(
        GOOD + "models:\n  fast: []\n", "c.yaml:4: models.fast.targets: expected at least 1 entries", id="no targets"
    ),
    pytest.param(
        GOOD + "models:\n  fast: {strategy: ordered}\n",
        "c.yaml:4: models.fast.targets: this key is needed",
        id="needed key",
    ),
    pytest.param(
        GOOD + "models:\n  fast: [{target: openai/a, weight: 0}]\n",
        "c.yaml:4: models.fast: at least one target needs a weight above 0",
        id="no weight",
    ),
    pytest.param(
        GOOD + 'models:\n  "a b": openai/a\n', "c.yaml:4: models.a b: an alias has 1 to 128 visible", id="bad alias"
    ),
    pytest.param(
        "prices_file: /no/such.yaml\n", "c.yaml:1: prices_file: there is no file /no/such.yaml", id="no prices file"
    ),
    pytest.param(
        "server:\n  tls_cert: /c.pem\n", "c.yaml:1: server: tls_cert and tls_key go together", id="half of tls"
    ),
]


@pytest.mark.parametrize(("text", "says"), MISTAKES)
def test_a_mistake_names_its_place(text: str, says: str) -> None:
    """The error begins with file and line, names the key, and says what is expected."""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "c.yaml", {})
    assert says in str(caught.value)
    assert str(caught.value).startswith("c.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        pytest.param({"COUNTERFOIL_PORT": "http"}, "COUNTERFOIL_PORT: port: expected a whole number", id="wrong type"),
        pytest.param(
            {"COUNTERFOIL_PROT": "1"},
            "COUNTERFOIL_PROT: unknown variable; did you mean COUNTERFOIL_PORT?",
            id="misspelt",
        ),
        pytest.param(
            {"COUNTERFOIL_PROVIDERS_OPENAI_API_KYE": "sk-secret"},
            "unknown variable; did you mean COUNTERFOIL_PROVIDERS_OPENAI_API_KEY?",
            id="misspelt deep down",
        ),
        pytest.param({"COUNTERFOIL_XYZZY_PLUGH": "1"}, "unknown variable; see docs/configuration.md", id="far off"),
        pytest.param(
            {"COUNTERFOIL_MODELS_FAST": "[a"}, "COUNTERFOIL_MODELS_FAST: this is not valid YAML", id="bad yaml"
        ),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(environ: dict[str, str], says: str) -> None:
    """A variable is named as it was written, and its value is not shown where it may be a secret."""
    with pytest.raises(ConfigError) as caught:
        config.parse(GOOD, "c.yaml", environ)
    assert says in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_a_mistake_on_the_command_line_names_the_option() -> None:
    """An override that does not fit is named as its option."""
    with pytest.raises(ConfigError, match=r"^--port: port: expected a whole number"):
        config.parse(GOOD, "c.yaml", {}, {"port": 70_000})


def test_an_expanded_value_is_never_repeated() -> None:
    """What a variable holds may be a secret, so the error shows the reference instead."""
    with pytest.raises(ConfigError) as caught:
        config.parse("port: ${SECRET}\n", "c.yaml", {"SECRET": "sk-very-secret"})
    assert "sk-very-secret" not in str(caught.value)
    assert "'${SECRET}'" in str(caught.value)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """A file that was named and is not there is an error; it is not passed over."""
    with pytest.raises(ConfigError, match=r"There is no configuration file .*none\.yaml\. Write one"):
        config.load(tmp_path / "none.yaml", {}, {})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A path that cannot be read as a file says why."""
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path, {}, {})


def test_text_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    """A file in another encoding is told by its first bad line."""
    file = tmp_path / "c.yaml"
    file.write_bytes(b"port: 1\nhost: caf\xe9\n")
    with pytest.raises(ConfigError, match=re.escape(f"{file}:2: this is not UTF-8 text")):
        config.load(file, {}, {})


@pytest.mark.parametrize("depth", [100, 5_000], ids=str)
def test_deep_nesting_is_an_error_and_no_crash(depth: int) -> None:
    """However deep the brackets go, the answer is a ConfigError."""
    with pytest.raises(ConfigError):
        config.parse("host: " + "[" * depth + "]" * depth, "c.yaml", {})


def test_aliases_that_multiply_are_stopped() -> None:
    """A file of ten lines cannot become a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(ConfigError, match="endless"):
        config.parse("\n".join(lines), "c.yaml", {})
