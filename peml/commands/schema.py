"""`peml schema`: `prefixnas schema`, and the files that PEML alone has."""

from __future__ import annotations

from collections.abc import Sequence

from prefixnas.base.console import Parser
from prefixnas.commands import schema

HELP = schema.HELP

KINDS = {
    **schema.KINDS,
    "task": ("peml.tasks.schema:task_schema", "a task, --tasks FILE"),
    "table": ("peml.tables.schema:table_schema", "rows of methods, table FILE"),
}


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    return schema.parser(prog, KINDS)


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    return schema.main(argv, prog, KINDS)
