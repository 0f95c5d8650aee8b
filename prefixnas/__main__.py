"""The command line: `prefixnas COMMAND`; a command is a module of `prefixnas.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefixnas.base.console import program, run_command

COMMANDS = {
    name: f"prefixnas.commands.{name}"
    for name in (
        "search",
        "spaces",
        "strategies",
        "show",
        "report",
        "compare",
        "stability",
        "diagnose",
        "transfer",
        "tune",
        "experiment",
        "schema",
        "completion",
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `prefixnas`."""
    return program(_main, argv)


def _main(argv: Sequence[str]) -> int:
    return run_command("prefixnas", "Architecture search for small modules.", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
