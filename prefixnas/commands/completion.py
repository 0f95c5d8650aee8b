"""`prefixnas completion SHELL`, `peml completion SHELL`: print a script that completes the program.

The script holds all commands, flags and names, as they are when it is made: completing starts no
program.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from prefixnas.base.console import Parser
from prefixnas.base.errors import unknown
from prefixnas.commands.flags import names_of_keys
from prefixnas.commands.output import Output, add_output

HELP = "print a script that completes commands and flags"

SHELLS = ("bash", "zsh", "fish")


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_args(argv)
    if args.shell not in SHELLS:
        raise unknown("shell", args.shell, SHELLS)

    import shtab

    program = prog.partition(" ")[0]
    commands: Mapping[str, str] = import_module(f"{program}.__main__").COMMANDS
    script = shtab.complete(whole_parser(program, commands), args.shell)
    Output.of(args).result({"shell": args.shell, "script": script}, script)
    return 0


def whole_parser(program: str, commands: Mapping[str, str]) -> Parser:
    """Return one parser of all commands, in which every value that is known has its choices.

    Args:
        program: Its name.
        commands: As `prefixnas.base.console.run_command` takes them.
    """
    import shtab

    whole = Parser(prog=program)
    whole.add_argument("--version", action="version", help="print the version")
    offered = whole.add_subparsers(dest="command", metavar="COMMAND")
    known: dict[str, Collection[str]] = {**names_of_keys(), "shell": SHELLS}
    for name, path in commands.items():
        module = import_module(path)
        command: Parser = module.parser(f"{program} {name}")
        known |= {"kind": [*module.KINDS]} if name == "schema" else {}
        for action in _actions(command):
            if found := _values(action, name, known):
                action.choices = found
            elif _is_path(action):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        offered.add_parser(name, help=module.HELP, parents=[command], add_help=False)
    return whole


PATHS = ("arch", "model", "plugin", "tasks")
"""Flags and arguments that are files, and names of other things at times."""

NAMES = {"spaces": "space", "strategies": "strategy", "methods": "method"}
"""Per command the key whose values are the names that it takes."""


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the flags and arguments of a parser and of the parsers below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action


def _values(
    action: argparse.Action, command: str, known: Mapping[str, Collection[str]]
) -> Collection[str] | None:
    """Return the values that a flag or an argument may have; None: they cannot be listed."""
    key = NAMES.get(command, "") if action.dest == "name" else action.dest
    if key in known:
        return known[key]
    several = isinstance(action.metavar, str) and "|" in action.metavar
    return str(action.metavar).split("|") if several else None


def _is_path(action: argparse.Action) -> bool:
    return action.type is Path or action.dest in PATHS
