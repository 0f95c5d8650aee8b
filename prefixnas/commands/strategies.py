"""`prefixnas strategies`: list the search strategies, or explain one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from prefixnas.base.console import Parser
from prefixnas.commands.output import Output, add_output

HELP = "list the strategies, or explain one"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("name", nargs="?", help="a strategy")
    parser.add_argument(
        "--plugin", nargs="*", default=[], help="modules or .py files that register strategies"
    )
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)
    output = Output.of(args)

    from prefixnas.base.options import default_of, fields_of
    from prefixnas.base.plugins import load_plugin
    from prefixnas.run.strategy import STRATEGIES

    for plugin in args.plugin:
        load_plugin(plugin)
    if args.name is None:
        said = {n: (inspect.getdoc(STRATEGIES.get(n)) or "").splitlines()[0]
                for n in STRATEGIES.names()}  # fmt: skip
        document = [{"strategy": name, "summary": line} for name, line in said.items()]
        output.result(
            {"strategies": document}, *(f"{name:12} {line}" for name, line in said.items())
        )
        return 0
    cls = STRATEGIES.get(args.name)
    text = inspect.getdoc(inspect.getmodule(cls) or cls) or ""
    entries = fields_of({"strategy": cls}).values()
    keys = [
        {"key": e.name, "help": e.metadata.get("help", ""), "default": default_of(e)}
        for e in entries
    ]
    lines = [
        f"--{key['key'].replace('_', '-'):22} {key['help']} (default: {key['default']})"
        for key in keys
    ]
    output.result({"strategy": args.name, "about": text, "keys": keys}, f"{text}\n", *lines)
    return 0
