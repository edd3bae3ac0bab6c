"""``python -m counterfoil``: the command line, for this very interpreter."""

from __future__ import annotations

from counterfoil.cli.main import main

if __name__ == "__main__":
    main()
