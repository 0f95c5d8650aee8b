"""`prefixnas spaces`: list the search spaces, or show one."""

from __future__ import annotations

from collections.abc import Sequence

from prefixnas.base.console import Parser, positive

HELP = "list the spaces, or show one"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("name", nargs="?", help="a space or a YAML file")
    parser.add_argument("--width", type=positive, default=64, help="width for the parameter counts")
    parser.add_argument(
        "--plugin", nargs="*", default=[], help="modules or .py files that register operations"
    )
    args = parser.parse_intermixed_args(argv)

    from prefixnas.base.plugins import load_plugin
    from prefixnas.network.supernet import count_parameters
    from prefixnas.space.loading import SPACES, load_space, space_to_yaml
    from prefixnas.space.space import counted

    for plugin in args.plugin:
        load_plugin(plugin)
    if args.name is None:
        for name in SPACES.names():
            space = load_space(name)
            size, decisions = counted(space.size), len(space.decisions)
            print(f"{name:14} {size:>12} architectures, {decisions} decisions")
        return 0
    space = load_space(args.name)
    print(space_to_yaml(space), end="")
    print(f"\n# {counted(space.size)} architectures")
    for decision in space.decisions:
        kind = "knob, " if decision.knob else ""
        print(f"# {decision.name} ({kind}by {decision.decided_by}): {', '.join(decision.options)}")
    parameters = count_parameters(space, space.first(), args.width)
    print(f"# parameters of the first options at width {args.width}: {parameters:,}")
    return 0
