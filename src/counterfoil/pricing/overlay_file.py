"""The operator's price file: YAML in, an :class:`~counterfoil.pricing.overlay.Overlay` out, every error with its line.

::

    providers:                        # whose list a configured provider charges, and where it is
      local: {prices: openai, region: eu}
    prices:
      - provider: local               # names may hold *; default: every provider
        model: llama-3-70b
        team: acme                    # for one team only
        tier: flex                    # for one service tier only
        region: eu
        from: 2026-01-01              # UTC, inclusive
        to: 2026-07-01T12:00:00Z      # UTC, exclusive
        only: true                    # drop what the catalogue says about this model
        rates:
          input_tokens: 0.15          # dollars per million tokens; per unit for everything else
          output_tokens: {price: 0.60, per: 1M, above: {200000: 0.90}}
          cache_read_tokens: {price: 0.08, graduated: {1000000: 0.04}}
          input_audio_minutes: 0.006
          images.high.1024x1024: 0.167
          web_searches: {price: 10, per: 1000, included: 5}
        windows:
          - {from: "16:30", to: "00:30", days: [mon, tue], times: 0.5}
      - {model: "demo/*", free: true}
    adjust:
      - {name: acme-2026, team: acme, percent: -10}
    fees:
      - {name: platform, request: 0.0001}
    byok:                             # what you charge where a team's own provider key pays
      - {percent: 2.5, minimum: 0.0001, maximum: 0.05}
      - {name: acme-flat, team: acme, request: 0.0002}
    suppress: {empty_answers: true}

Numbers are read as text and become exact integers; nothing passes through a float. All errors are collected, so one
run shows all of them.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, Final, Protocol, cast

import yaml

from counterfoil.errors import ConfigError
from counterfoil.pricing import meters as m
from counterfoil.pricing.overlay import Adjustment, ByokFee, Fee, Overlay, OwnPrice, Serves
from counterfoil.pricing.rates import DAY_NAMES, Band, Rate, Window, exact, multiplied
from counterfoil.record.times import moment_ms

FILE_CHARACTERS_MAX: Final = 16 * 1024 * 1024
"""The largest price file that is read; an import of every model that LiteLLM lists has about 1 MB."""
ERRORS_MAX: Final = 20
"""Errors shown at once; a wholly wrong file need not say so in thousands of lines."""

DEPTH_MAX: Final = 32
"""Deeper than any price can be."""

_compose: Callable[..., yaml.Node | None] = cast("Any", yaml).compose
_parse: Callable[..., Iterator[yaml.Event]] = cast("Any", yaml).parse
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SIZES = {"k": 1_000, "m": 1_000_000, "thousand": 1_000, "million": 1_000_000, "unit": 1, "request": 1, "token": 1}
_DURATIONS = {"millisecond": 1, "second": 1_000, "minute": 60_000, "hour": 3_600_000}
_PER = re.compile(r"([1-9][0-9_]*)\s*([kKmM])?\Z")
_METER = re.compile(r"[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)*\Z")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_SECONDS_END = {"_seconds": 1_000, "_minutes": 60_000, "_hours": 3_600_000}


class Readable(Protocol):
    """A file that can give its text, as ``pathlib.Path`` does; this package opens nothing itself."""

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """The whole text."""
        ...


def read_overlay(file: Readable) -> Overlay:
    """The overlay in ``file``. Raises :class:`ConfigError`, with every error's line, when it is not one."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The price file {file} cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The price file {file} is not UTF-8 text (byte {error.start}).") from error
    return parse_overlay(text, str(file))


def parse_overlay(text: str, name: str = "prices.yaml") -> Overlay:
    """The overlay in ``text``; ``name`` is what errors call it. Raises :class:`ConfigError`."""
    if len(text) > FILE_CHARACTERS_MAX:
        raise ConfigError(f"{name} is larger than {FILE_CHARACTERS_MAX} characters.")
    try:
        _refuse_depth(text, name)
        root = _compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: this is not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{name}: this is not YAML: {error}") from error
    reader = _Reader(name)
    overlay = Overlay() if root is None else _overlay(reader, root)
    reader.raise_problems()
    return overlay


def _refuse_depth(text: str, name: str) -> None:
    """Raise :class:`ConfigError` for a file nested deeper than any price: composing it would exhaust the C stack."""
    depth = 0
    for event in _parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise ConfigError(f"{name}:{event.start_mark.line + 1}: nested more than {DEPTH_MAX} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Reader:
    """Reads YAML nodes into values, noting what is wrong and going on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []

    def wrong(self, node: yaml.Node, what: str) -> None:
        """Note an error at the line of ``node``."""
        self.problems.append(f"{self.name}:{node.start_mark.line + 1}: {what}")

    def raise_problems(self) -> None:
        """Raise everything noted, as one error."""
        if self.problems:
            more = len(self.problems) - ERRORS_MAX
            shown = self.problems[:ERRORS_MAX] + ([f"{self.name}: and {more} more"] if more > 0 else [])
            raise ConfigError("\n".join(shown))

    def pairs(self, node: yaml.Node) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """Key, key node and value node of a mapping, duplicates refused."""
        if not isinstance(node, yaml.MappingNode):
            self.wrong(node, "expected a mapping (key: value)")
            return []
        seen: dict[str, int] = {}
        found: list[tuple[str, yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.wrong(key, "a key must be plain text")
            elif key.value in seen:
                self.wrong(key, f"{key.value} is already given on line {seen[key.value]}")
            else:
                seen[key.value] = key.start_mark.line + 1
                found.append((key.value, key, value))
        return found

    def fields(self, node: yaml.Node, known: Iterable[str]) -> dict[str, yaml.Node]:
        """The values of a mapping whose keys are known; an unknown key is an error that names the nearest one."""
        known = tuple(known)
        found: dict[str, yaml.Node] = {}
        for name, key, value in self.pairs(node):
            if name in known:
                found[name] = value
            else:
                near = difflib.get_close_matches(name, known, 1)
                self.wrong(key, f"unknown key {name}" + (f"; did you mean {near[0]}?" if near else ""))
        return found

    def items(self, node: yaml.Node) -> list[yaml.Node]:
        """The members of a list."""
        if isinstance(node, yaml.SequenceNode):
            return node.value
        self.wrong(node, "expected a list")
        return []

    def text(self, node: yaml.Node) -> str:
        """A word or a number as it was written."""
        if isinstance(node, yaml.ScalarNode) and node.value:
            return node.value
        self.wrong(node, "expected a value")
        return ""

    def boolean(self, node: yaml.Node) -> bool:
        """``true`` or ``false``."""
        word = self.text(node)
        if word not in ("true", "false"):
            self.wrong(node, f"expected true or false, not {word}")
        return word == "true"

    def integer(self, node: yaml.Node) -> int:
        """A whole number that is not negative."""
        word = self.text(node).replace("_", "")
        if not (word.isascii() and word.isdigit()) or len(word) > 15:
            self.wrong(node, f"expected a whole number, not {word}")
            return 0
        return int(word)

    def fraction(self, node: yaml.Node, *, signed: bool = False) -> Fraction:
        """A decimal number, exactly."""
        word = self.text(node)
        sign = -1 if signed and word.startswith("-") else 1
        try:
            price, size = exact(word.removeprefix("-") if signed else word, 1)
        except ValueError:
            self.wrong(node, f"expected a decimal number, not {word}")
            return Fraction(0)
        return Fraction(sign * price, size * 1_000_000_000)

    def dollars(self, node: yaml.Node, size: int) -> tuple[int, int]:
        """A price in dollars per ``size`` units, as nanos and the size that makes them whole."""
        word = self.text(node).removeprefix("$")
        try:
            price, size = exact(word, size)
        except ValueError as error:
            self.wrong(node, f"expected a price in dollars such as 0.15, not {word} ({error})")
            return 0, size
        if price > _INTEGER_MAX or size > _INTEGER_MAX:
            self.wrong(node, f"{word} has too many digits for a price")
            return 0, 1
        return price, size

    def moment(self, node: yaml.Node) -> int:
        """A UTC date or date-time as Unix milliseconds."""
        word = self.text(node)
        try:
            return moment_ms(word)
        except ValueError:
            self.wrong(node, f"expected a date such as 2026-01-31 or 2026-01-31T12:00:00Z, not {word}")
            return 0

    def clock(self, node: yaml.Node) -> int:
        """A time of day as minutes."""
        match = _CLOCK.match(self.text(node))
        if match is None:
            self.wrong(node, 'expected a time of day such as "16:30"')
            return 0
        return int(match[1]) * 60 + int(match[2])


_INTEGER_MAX = (1 << 63) - 1
_SCOPE = ("name", "provider", "model", "team", "from", "to")


def _overlay(reader: _Reader, root: yaml.Node) -> Overlay:
    fields = reader.fields(root, ("providers", "prices", "adjust", "fees", "byok", "suppress"))
    prices = [price for node, number in _numbered(reader, fields, "prices") for price in _prices(reader, node, number)]
    overlay = Overlay(
        providers={name: _serves(reader, value) for name, _, value in _pairs(reader, fields.get("providers"))},
        prices=tuple(prices),
        adjustments=tuple(_adjustment(reader, node, number) for node, number in _numbered(reader, fields, "adjust")),
        fees=tuple(_fee(reader, node, number) for node, number in _numbered(reader, fields, "fees")),
        byok=tuple(_byok(reader, node, number) for node, number in _byok_rules(reader, fields.get("byok"))),
        suppress_empty=_suppress(reader, fields["suppress"]) if "suppress" in fields else False,
    )
    _refuse_twins(reader, root, overlay)
    return overlay


def _pairs(reader: _Reader, node: yaml.Node | None) -> list[tuple[str, yaml.Node, yaml.Node]]:
    return [] if node is None else reader.pairs(node)


def _numbered(reader: _Reader, fields: dict[str, yaml.Node], name: str) -> list[tuple[yaml.Node, int]]:
    if name not in fields:
        return []
    return [(node, number) for number, node in enumerate(reader.items(fields[name]), 1)]


def _refuse_twins(reader: _Reader, root: yaml.Node, overlay: Overlay) -> None:
    """Two rules of one name would make a line's ``rule_id`` ambiguous."""
    names = [rule.name for rule in (*overlay.prices, *overlay.adjustments, *overlay.fees, *overlay.byok)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        reader.wrong(root, f"the name {name.removeprefix('own/')} is given to more than one rule")


def _scope(reader: _Reader, fields: dict[str, yaml.Node], kind: str, number: int) -> dict[str, Any]:
    name = f"{kind}-{number}"
    if "name" in fields:
        name = reader.text(fields["name"])
        if not _NAME.match(name):
            reader.wrong(fields["name"], "a name holds letters, digits, dots, hyphens and underscores")
    scope: dict[str, Any] = {"name": f"own/{name}"}
    readers: dict[str, tuple[str, Callable[[yaml.Node], Any]]] = {
        "provider": ("provider", reader.text),
        "model": ("model", reader.text),
        "team": ("team", reader.text),
        "from": ("start", reader.moment),
        "to": ("until", reader.moment),
    }
    for key, (attribute, read) in readers.items():
        if key in fields:
            scope[attribute] = read(fields[key])
    if "start" in scope and "until" in scope and scope["start"] >= scope["until"]:
        reader.wrong(fields["to"], "the end must be later than the beginning")
    return scope


def _serves(reader: _Reader, node: yaml.Node) -> Serves:
    if isinstance(node, yaml.ScalarNode):
        return Serves(reader.text(node))
    fields = reader.fields(node, ("prices", "region"))
    if "prices" not in fields:
        reader.wrong(node, "say whose prices apply: prices: NAME")
        return Serves("")
    return Serves(reader.text(fields["prices"]), reader.text(fields["region"]) if "region" in fields else None)


def _prices(reader: _Reader, node: yaml.Node, number: int) -> list[OwnPrice]:
    """One price of the file: the price itself, and one more for each of its windows."""
    fields = reader.fields(node, (*_SCOPE, "rates", "windows", "tier", "region", "only", "free", "source"))
    scope = _scope(reader, fields, "price", number)
    for key in ("tier", "region", "source"):
        if key in fields:
            scope[key] = reader.text(fields[key])
    free = "free" in fields and reader.boolean(fields["free"])
    rates = _rates(reader, fields.get("rates"))
    if not fields.keys() & {"rates", "windows", "free"}:
        reader.wrong(node, "a price needs rates, windows or free: true")
    base = OwnPrice(**scope, rates=rates, free=free, only="only" in fields and reader.boolean(fields["only"]))
    windows = reader.items(fields["windows"]) if "windows" in fields else []
    return [base, *(_windowed(reader, window, base) for window in windows)]


def _windowed(reader: _Reader, node: yaml.Node, base: OwnPrice) -> OwnPrice:
    fields = reader.fields(node, ("from", "to", "days", "times", "rates"))
    if "from" not in fields or "to" not in fields or ("times" in fields) == ("rates" in fields):
        reader.wrong(node, "a window needs from, to, and either times or rates")
        return base
    days = tuple(_day(reader, day) for day in reader.items(fields["days"])) if "days" in fields else ()
    window = Window(reader.clock(fields["from"]), reader.clock(fields["to"]), days)
    if "rates" in fields:
        rates = _rates(reader, fields["rates"])
    else:
        factor = reader.fraction(fields["times"])
        rates = {meter: multiplied(rate, factor.numerator, factor.denominator) for meter, rate in base.rates.items()}
    return OwnPrice(
        name=f"{base.name}~{window.label()}",
        provider=base.provider,
        model=base.model,
        team=base.team,
        start=base.start,
        until=base.until,
        rates=rates,
        tier=base.tier,
        region=base.region,
        windows=(window,),
        source=base.source,
    )


def _day(reader: _Reader, node: yaml.Node) -> int:
    word = reader.text(node)
    if word not in DAY_NAMES:
        reader.wrong(node, f"expected one of {', '.join(DAY_NAMES)}, not {word}")
        return 0
    return DAY_NAMES.index(word)


def _rates(reader: _Reader, node: yaml.Node | None) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for name, key, value in _pairs(reader, node):
        meter, unit = _meter(name)
        if not _METER.match(meter):
            reader.wrong(key, f"{name} is not the name of a meter")
        elif meter in rates:
            reader.wrong(key, f"{meter} is priced twice")
        else:
            _warn_near_miss(reader, key, meter)
            rates[meter] = _rate(reader, meter, unit, value)
    return rates


def _meter(name: str) -> tuple[str, int]:
    """The meter a name stands for and the units of its price: ``input_audio_minutes`` is 60,000 ``input_audio_ms``."""
    root, dot, rest = name.partition(".")
    for end, milliseconds in _SECONDS_END.items():
        if root.endswith(end):
            return f"{root.removesuffix(end)}_ms{dot}{rest}", milliseconds
    return name, m.default_size(name)


def _warn_near_miss(reader: _Reader, key: yaml.Node, meter: str) -> None:
    """A misspelt meter would silently never be billed; a meter of the operator's own is welcome."""
    root = m.base(meter)
    if root in m.KNOWN_METERS:
        return
    near = difflib.get_close_matches(root, sorted(m.KNOWN_METERS), 1, cutoff=0.8)
    if near:
        reader.wrong(key, f"there is no meter {root}; did you mean {near[0]}?")


def _rate(reader: _Reader, meter: str, unit: int, node: yaml.Node) -> Rate:
    if isinstance(node, yaml.ScalarNode):
        _need_unit(reader, node, meter, unit)
        price, size = reader.dollars(node, unit)
        return Rate(price, size)
    fields = reader.fields(node, ("price", "per", "above", "graduated", "included", "minimum", "maximum"))
    if "price" not in fields:
        reader.wrong(node, "a rate needs a price")
        return Rate(0)
    if "per" in fields:
        unit = _per(reader, fields["per"], meter)
    else:
        _need_unit(reader, node, meter, unit)
    if "above" in fields and "graduated" in fields:
        reader.wrong(node, "give either above (reprices the whole call) or graduated, not both")
    bands = _bands(reader, fields.get("above") or fields.get("graduated"), unit)
    price, size = reader.dollars(fields["price"], unit)
    return Rate(
        price,
        size,
        bands,
        graduated="graduated" in fields,
        included=reader.integer(fields["included"]) if "included" in fields else 0,
        minimum=reader.integer(fields["minimum"]) if "minimum" in fields else 0,
        maximum=reader.integer(fields["maximum"]) if "maximum" in fields else 0,
    )


def _need_unit(reader: _Reader, node: yaml.Node, meter: str, unit: int) -> None:
    if unit == 1 and m.base(meter).endswith("_ms"):
        seconds = m.base(meter).removesuffix("_ms") + "_seconds"
        reader.wrong(node, f"{meter} counts milliseconds: say per: second, or name it {seconds}")


def _per(reader: _Reader, node: yaml.Node, meter: str) -> int:
    word = reader.text(node)
    units = _DURATIONS if m.base(meter).endswith("_ms") else _SIZES
    if word in units:
        return units[word]
    match = _PER.match(word)
    if match is None or units is _DURATIONS:
        choices = ", ".join(_DURATIONS) if units is _DURATIONS else "1, 1000, 1k, 1M"
        reader.wrong(node, f"per must be one of {choices}, not {word}")
        return 1
    return int(match[1].replace("_", "")) * _SIZES.get((match[2] or "").lower(), 1)


def _bands(reader: _Reader, node: yaml.Node | None, unit: int) -> tuple[Band, ...]:
    bands: list[Band] = []
    for name, key, value in _pairs(reader, node):
        above = name.replace("_", "")
        if not (above.isascii() and above.isdigit()) or len(above) > 15:
            reader.wrong(key, f"expected a threshold such as 200000, not {name}")
            continue
        bands.append(Band(int(above), *reader.dollars(value, unit)))
    if any(one.above >= two.above for one, two in itertools.pairwise(bands)) and node is not None:
        reader.wrong(node, "thresholds must ascend")
    return tuple(bands)


def _adjustment(reader: _Reader, node: yaml.Node, number: int) -> Adjustment:
    fields = reader.fields(node, (*_SCOPE, "percent", "meters"))
    scope = _scope(reader, fields, "adjust", number)
    factor = Fraction(1)
    if "percent" not in fields:
        reader.wrong(node, "an adjustment needs percent, such as -10 for a discount of 10 %")
    else:
        factor += reader.fraction(fields["percent"], signed=True) / 100
        if factor < 0:
            reader.wrong(fields["percent"], "a discount cannot exceed 100 %")
    meters = tuple(reader.text(meter) for meter in reader.items(fields["meters"])) if "meters" in fields else ()
    return Adjustment(**scope, numerator=factor.numerator, denominator=factor.denominator, meters=meters)


def _fee(reader: _Reader, node: yaml.Node, number: int) -> Fee:
    fields = reader.fields(node, (*_SCOPE, "request"))
    scope = _scope(reader, fields, "fee", number)
    if "request" not in fields:
        reader.wrong(node, "a fee needs request: DOLLARS")
        return Fee(**scope, nanos=0)
    return Fee(**scope, nanos=_whole(reader, fields["request"]))


def _whole(reader: _Reader, node: yaml.Node) -> int:
    price, size = reader.dollars(node, 1)
    if size != 1:
        reader.wrong(node, "a fee must be a whole number of nano-dollars (nine decimals)")
    return price


def _byok_rules(reader: _Reader, node: yaml.Node | None) -> list[tuple[yaml.Node, int]]:
    """The rules for teams' own keys: a list of them, or one alone."""
    if node is None:
        return []
    return (
        [(node, 1)] if isinstance(node, yaml.MappingNode) else [(one, n) for n, one in enumerate(reader.items(node), 1)]
    )


def _byok(reader: _Reader, node: yaml.Node, number: int) -> ByokFee:
    fields = reader.fields(node, (*_SCOPE, "percent", "request", "minimum", "maximum"))
    if not fields.keys() & {"percent", "request", "minimum"}:
        reader.wrong(node, "a fee for teams' own keys needs percent, request or minimum")
    factor = reader.fraction(fields["percent"]) / 100 if "percent" in fields else Fraction(0)
    minimum = _whole(reader, fields["minimum"]) if "minimum" in fields else 0
    maximum = _whole(reader, fields["maximum"]) if "maximum" in fields else None
    if maximum is not None and maximum < minimum:
        reader.wrong(fields["maximum"], "the maximum must not be less than the minimum")
    return ByokFee(
        **_scope(reader, fields, "byok", number),
        numerator=factor.numerator,
        denominator=factor.denominator,
        request_nanos=_whole(reader, fields["request"]) if "request" in fields else 0,
        minimum_nanos=minimum,
        maximum_nanos=maximum,
    )


def _suppress(reader: _Reader, node: yaml.Node) -> bool:
    fields = reader.fields(node, ("empty_answers",))
    return "empty_answers" in fields and reader.boolean(fields["empty_answers"])
