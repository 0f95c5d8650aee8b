"""`prefixnas strategies`: list the search strategies, or explain one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from prefixnas.base.console import Parser

HELP = "list the strategies, or explain one"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("name", nargs="?", help="a strategy")
    parser.add_argument(
        "--plugin", nargs="*", default=[], help="modules or .py files that register strategies"
    )
    args = parser.parse_intermixed_args(argv)

    from prefixnas.base.options import default_of, fields_of
    from prefixnas.base.plugins import load_plugin
    from prefixnas.run.strategy import STRATEGIES

    for plugin in args.plugin:
        load_plugin(plugin)
    if args.name is None:
        for name in STRATEGIES.names():
            print(f"{name:12} {(inspect.getdoc(STRATEGIES.get(name)) or '').splitlines()[0]}")
        return 0
    cls = STRATEGIES.get(args.name)
    module = inspect.getmodule(cls)
    print(inspect.getdoc(module) if module else inspect.getdoc(cls))
    print()
    for entry in fields_of({"strategy": cls}).values():
        text = entry.metadata.get("help", "")
        print(f"--{entry.name.replace('_', '-'):22} {text} (default: {default_of(entry)})")
    return 0
