"""`prefixnas schema`: print the JSON schema of a kind of file, for editors and other checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module

from prefixnas.base.console import Parser
from prefixnas.base.errors import unknown
from prefixnas.commands.output import Output, add_output

HELP = "print the JSON schema of a file"

KINDS: Mapping[str, tuple[str, str]] = {
    "run": ("prefixnas.launch.schema:run_schema", "a configuration, --config FILE"),
    "space": ("prefixnas.space.schema:space_schema", "a search space, --space FILE"),
    "comparison": ("prefixnas.compare.schema:comparison_schema", "compare --config FILE"),
    "transfer": ("prefixnas.compare.schema:group_schema", "a group of tasks, transfer FILE FILE"),
    "experiment": ("prefixnas.experiments.schema:experiment_schema", "a study, tune FILE"),
}
"""Per kind the function that makes the schema, and what the file is for."""


def parser(prog: str, kinds: Mapping[str, tuple[str, str]] = KINDS) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("kind", nargs="?", help=f"{', '.join(kinds)}; none: list them")
    parser.add_argument(
        "--plugin", nargs="*", default=[], help="modules or .py files whose names and keys count"
    )
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str, kinds: Mapping[str, tuple[str, str]] = KINDS) -> int:
    """Run the command.

    Args:
        argv: The arguments after the command.
        prog: How the command is called, for the help.
        kinds: The kinds that it knows.
    """
    args = parser(prog, kinds).parse_intermixed_args(argv)
    output = Output.of(args)
    if args.kind is None:
        rows = [{"kind": kind, "file": told} for kind, (_, told) in kinds.items()]
        output.result({"kinds": rows}, *(f"{row['kind']:12} {row['file']}" for row in rows))
        return 0
    if args.kind not in kinds:
        raise unknown("kind of file", args.kind, kinds)

    from prefixnas.base.plugins import load_plugin

    for plugin in args.plugin:
        load_plugin(plugin)
    module, _, function = kinds[args.kind][0].partition(":")
    schema = getattr(import_module(module), function)()
    output.result(schema, json.dumps(schema, indent=2))
    return 0
