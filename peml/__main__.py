"""The command line: `peml COMMAND`; a command is a module of `peml.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefixnas.base.console import program, run_command

COMMANDS = {
    name: f"peml.commands.{name}"
    for name in (
        "tasks",
        "methods",
        "train",
        "tune",
        "table",
        "evaluate",
        "predict",
        "generate",
        "export",
        "push",
        "schema",
    )
} | {"completion": "prefixnas.commands.completion"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `peml`."""
    return program(_main, argv)


def _main(argv: Sequence[str]) -> int:
    return run_command("peml", "One adapter for many tasks: LoRA and a prefix.", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
