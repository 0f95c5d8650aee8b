"""`peml tune`: many searches, to find the best hyper-parameters together with the architecture."""

from __future__ import annotations

from collections.abc import Sequence

from prefixnas.commands.tune import tune_command

HELP = "many searches: hyper-parameters and architecture together"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    return tune_command(argv, prog)
