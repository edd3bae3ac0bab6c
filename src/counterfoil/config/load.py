"""Reads the configuration: command line over environment over file over default.

::

    file ──┐
    environment ──┼── one tree of texts ── known providers filled in ── fitted to Config ── checked as a whole
    command line ─┘

Variables inside values are expanded only where the value is used: what a higher layer replaced is never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from counterfoil.config.check import check
from counterfoil.config.known import KNOWN_PROVIDERS, KnownProvider
from counterfoil.config.model import DEFAULT_DATA, Config, LedgerConfig, ProviderConfig, RouteConfig, TargetConfig
from counterfoil.config.shape import Fitter, Spelling
from counterfoil.config.tree import Branch, Leaf, Node, Origin, Sequence, fault, from_values, from_yaml, overlay
from counterfoil.config.variables import CONFIG, layer
from counterfoil.errors import ConfigError

DEFAULT_FILE = Path("counterfoil.yaml")
FILE_BYTES_MAX = 4 << 20
_PROVIDER_KEYS = frozenset(ProviderConfig.__struct_fields__)


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Config:
    """The configuration from ``path`` (else ``COUNTERFOIL_CONFIG``, else ``./counterfoil.yaml`` when it is there).

    ``overrides`` are the command line's, nested as the file is; a None means not given. When nothing names a provider,
    every known provider whose usual variable is set is one. Raises :class:`ConfigError` for anything unusable.
    """
    return _decide(_file_tree(_file(path, environ)), environ, overrides)


def parse(text: str, name: str, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Config:
    """The configuration in ``text``; errors call it ``name`` and relative paths start at the working folder."""
    return _decide(_tree(text, Origin(name)), environ, overrides or {})


def data_folder(path: Path | None, environ: Mapping[str, str], data: Path | None = None) -> Path:
    """The data folder alone: ``data``, else ``COUNTERFOIL_DATA``, else the file's ``data``, else the default.

    Only that key is read, so a command that needs no provider works without the providers' variables.
    """
    if data is not None:
        return data
    if environ.get("COUNTERFOIL_DATA"):
        return Path(environ["COUNTERFOIL_DATA"]).expanduser()
    node = _file_tree(_file(path, environ)).entries.get("data")
    return DEFAULT_DATA if node is None else Fitter(environ, SPELLINGS).value(node, Config, "data")


def ledger_settings(path: Path | None, environ: Mapping[str, str]) -> LedgerConfig:
    """The section ``ledger`` alone, for commands that need no provider. Raises :class:`ConfigError`."""
    file = _file_tree(_file(path, environ))
    tree = overlay(file, layer(environ, file))
    node = tree.entries.get("ledger") if isinstance(tree, Branch) else None
    return LedgerConfig() if node is None else Fitter(environ, SPELLINGS).value(node, Config, "ledger")


def _file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return path
    if environ.get(CONFIG):
        return Path(environ[CONFIG]).expanduser()
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _file_tree(path: Path | None) -> Branch:
    if path is None:
        return Branch({}, Origin("configuration"))
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"There is no configuration file {path}. Write one, or leave --config out.") from error
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read ({error.strerror or error}).") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"The configuration file {path} is larger than {FILE_BYTES_MAX >> 20} MiB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8 text. Save the file as UTF-8.") from error
    return _tree(text, Origin(str(path), path.parent))


def _tree(text: str, origin: Origin) -> Branch:
    node = from_yaml(text, origin)
    if node is None or (isinstance(node, Leaf) and node.is_null):
        raise ConfigError(f"{origin.place}: the file is empty. Name at least one provider, or leave --config out.")
    if not isinstance(node, Branch):
        raise fault(node.origin, "", "expected keys and values, such as `port: 8080`")
    return node


def _decide(file: Branch, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Config:
    command_line = from_values(overrides)
    tree = overlay(overlay(file, layer(environ, file)), command_line)
    if not isinstance(tree, Branch):  # three branches overlaid are a branch
        raise TypeError(tree)
    fitter = Fitter(environ, SPELLINGS)
    config = fitter.struct(_completed(tree, environ), Config)
    return check(config, fitter)


def _completed(tree: Branch, environ: Mapping[str, str]) -> Branch:
    """``tree`` with what the known providers imply, and the general timeouts beneath each provider's own."""
    providers = tree.entries.get("providers")
    if providers is None or (isinstance(providers, Leaf) and providers.is_null):
        providers = _usual_providers(environ)
    if not isinstance(providers, Branch):
        return tree
    timeouts = tree.entries.get("timeouts")
    completed: dict[str, Node] = {
        name: _provider(name, node, timeouts, environ) for name, node in providers.entries.items()
    }
    return Branch({**tree.entries, "providers": Branch(completed, providers.origin)}, tree.origin)


def _usual_providers(environ: Mapping[str, str]) -> Branch:
    origin = Origin("the environment")
    found: dict[str, Node] = {
        name: Branch({}, Origin(variable))
        for name, known in KNOWN_PROVIDERS.items()
        for variable in known.variables
        if environ.get(variable)
    }
    return Branch(found, origin)


def _provider(name: str, node: Node, timeouts: Node | None, environ: Mapping[str, str]) -> Node:
    if isinstance(node, Leaf) and node.is_null:
        node = Branch({}, node.origin)
    if not isinstance(node, Branch):
        return node
    if any(key not in _PROVIDER_KEYS for key in node.entries):
        return node  # a misspelt key is named as such, not as the one that is missing because of it
    known = KNOWN_PROVIDERS.get(name)
    implied: dict[str, Node] = {"prices": Leaf((known and known.prices) or name, node.origin, quoted=True)}
    if known is not None:
        implied |= _implied(name, known, node, environ)
    elif "type" not in node.entries:
        problem = f"this key is needed (openai, anthropic or google), because {name} is not a provider known by name"
        raise fault(node.origin, f"providers.{name}.type", problem)
    if timeouts is not None:
        implied["timeouts"] = timeouts
    return overlay(Branch(implied, node.origin), node)


def _implied(name: str, known: KnownProvider, node: Branch, environ: Mapping[str, str]) -> dict[str, Node]:
    implied: dict[str, Node] = {
        "type": Leaf(known.type, node.origin, quoted=True),
        "base_url": Leaf(known.base_url, node.origin, quoted=True),
    }
    if "api_key" in node.entries or "base_url" in node.entries or not known.variables:
        return implied  # at an address of the operator's own the usual key must not go out unasked
    variable = next((item for item in known.variables if environ.get(item)), None)
    if variable is None:
        problem = f"no key; write one, set {' or '.join(known.variables)}, or write `none` to send no key"
        raise fault(node.origin, f"providers.{name}.api_key", problem)
    implied["api_key"] = Leaf(environ[variable], Origin(variable), quoted=True)
    return implied


def _spell_route(node: Node) -> Node:
    """``fast: openai/gpt-4o-mini`` and ``fast: [a, {target: b, weight: 2}]`` in full."""
    if isinstance(node, Leaf) and not node.is_null:
        return Branch({"targets": Sequence([node], node.origin)}, node.origin)
    if isinstance(node, Sequence):
        weighted = any(isinstance(item, Branch) and "weight" in item.entries for item in node.items)
        strategy = Leaf("weighted" if weighted else "ordered", node.origin, quoted=True)
        return Branch({"targets": node, "strategy": strategy}, node.origin)
    return node


def _spell_target(node: Node) -> Node:
    if isinstance(node, Leaf) and not node.is_null:
        return Branch({"target": node}, node.origin)
    return node


SPELLINGS: Mapping[type, Spelling] = {RouteConfig: _spell_route, TargetConfig: _spell_target}
