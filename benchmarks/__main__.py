"""The commands of the harness.

python -m benchmarks quick            ratios to nginx within a minute
python -m benchmarks --help           the others
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import peers, quick


def main() -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measures the gateway beside nginx and its peers.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("quick", help="P1, P2 and P4 as ratios to nginx, in about a minute")
    command.add_argument("--only", action="append", default=[], metavar="TARGET")
    command = commands.add_parser("peers", help="install other gateways outside the repository")
    command.add_argument("verb", choices=["install"])
    command.add_argument("names", nargs="*", metavar="NAME", help="litellm, portkey, bifrost, aiohttp; default all")
    arguments = parser.parse_args()
    if arguments.command == "peers":
        return peers.install(arguments.names)
    return quick.run(arguments.only)


if __name__ == "__main__":
    sys.exit(main())
