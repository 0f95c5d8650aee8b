"""`prefixnas spaces`: list the search spaces, or show one."""

from __future__ import annotations

from collections.abc import Sequence

from prefixnas.base.console import Parser, positive
from prefixnas.commands.output import Output, add_output

HELP = "list the spaces, or show one"


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description=HELP)
    parser.add_argument("name", nargs="?", help="a space or a YAML file")
    parser.add_argument("--width", type=positive, default=64, help="width for the parameter counts")
    parser.add_argument(
        "--plugin", nargs="*", default=[], help="modules or .py files that register operations"
    )
    add_output(parser)
    return parser


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    args = parser(prog).parse_intermixed_args(argv)

    from prefixnas.base.plugins import load_plugin

    for plugin in args.plugin:
        load_plugin(plugin)
    if args.name is None:
        _list(Output.of(args))
    else:
        _show(args.name, args.width, Output.of(args))
    return 0


def _list(output: Output) -> None:
    from prefixnas.space.loading import SPACES, load_space
    from prefixnas.space.space import counted

    spaces = {name: load_space(name) for name in SPACES.names()}
    document = [
        {"space": name, "architectures": space.size, "decisions": len(space.decisions)}
        for name, space in spaces.items()
    ]
    lines = [
        f"{name:14} {counted(space.size):>12} architectures, {len(space.decisions)} decisions"
        for name, space in spaces.items()
    ]
    output.result({"spaces": document}, *lines)


def _show(name: str, width: int, output: Output) -> None:
    from prefixnas.network.supernet import count_parameters
    from prefixnas.space.loading import load_space, space_to_yaml
    from prefixnas.space.space import counted

    space = load_space(name)
    parameters = count_parameters(space, space.first(), width)
    lines = [space_to_yaml(space), f"# {counted(space.size)} architectures"]
    for decision in space.decisions:
        kind = "knob, " if decision.knob else ""
        options = ", ".join(decision.options)
        lines.append(f"# {decision.name} ({kind}by {decision.decided_by}): {options}")
    lines.append(f"# parameters of the first options at width {width}: {parameters:,}")
    document = {
        "space": space.name,
        "architectures": space.size,
        "decisions": [
            {
                "decision": decision.name,
                "knob": decision.knob,
                "decided_by": decision.decided_by,
                "options": decision.options,
            }
            for decision in space.decisions
        ],
        "width": width,
        "parameters": parameters,
    }
    output.result(document, *lines)
