"""The commands of the harness.

python -m benchmarks                  the same as `quick`
python -m benchmarks quick            ratios to nginx within a minute
python -m benchmarks peers install    other gateways, outside the repository
python -m benchmarks full             everything, into benchmarks/results/
python -m benchmarks fill             ledgers of up to ten million records, for the lookup table of `full`
python -m benchmarks report           tables and charts from the newest results into docs/benchmarks.md
python -m benchmarks profile          where the gateway's time goes
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import full, lookups, peers, profile, quick, report


def main() -> int:
    """Run one command and return its exit status."""
    arguments = _parser().parse_args(sys.argv[1:] or ["quick"])
    match arguments.command:
        case "quick":
            return quick.run(arguments.only)
        case "full":
            parts = arguments.part or full.PARTS
            return full.run(parts, arguments.only, arguments.rounds, arguments.table, arguments.scale)
        case "report":
            return report.write(arguments.results)
        case "fill":
            return lookups.fill(arguments.records)
        case "profile":
            return profile.run(arguments.scenario, arguments.seconds)
        case _:
            return peers.install(arguments.names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measures the gateway beside nginx and its peers.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("quick", help="P1, P2, P4 and P6 beside nginx, in about a minute")
    command.add_argument("--only", action="append", default=[], metavar="TARGET")
    command = commands.add_parser("full", help="every target and scenario; minutes")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--only", action="append", default=[], metavar="TARGET")
    command.add_argument("--part", action="append", choices=full.PARTS)
    command.add_argument("--scale", type=float, default=1.0, help="below 1: shorter windows, to try the harness itself")
    command.add_argument("--table", action="append", default=[], metavar="GROWTH_TABLE")
    command = commands.add_parser("fill", help="make the ledgers for the lookup table beforehand; minutes and 7 GB")
    command.add_argument("records", type=int, nargs="?", default=lookups.LARGEST)
    command = commands.add_parser("report", help="write docs/benchmarks.md from results")
    command.add_argument("results", nargs="*", type=Path, help="JSON files; default: the newest that has each part")
    command = commands.add_parser("profile", help="where the time goes, by py-spy or perf")
    command.add_argument("scenario", nargs="?", choices=["unary", "streams"], default="unary")
    command.add_argument("--seconds", type=float, default=8.0)
    command = commands.add_parser("peers", help="install other gateways outside the repository")
    command.add_argument("verb", choices=["install"])
    command.add_argument("names", nargs="*", metavar="NAME", help="such as litellm or py-spy; default all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
