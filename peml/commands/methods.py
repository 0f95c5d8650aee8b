"""`peml methods`: list the ways to fine-tune, or explain one; count its weights in a model."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefixnas.base.console import Parser, positive

if TYPE_CHECKING:
    from peml.methods.method import Method
    from peml.model.model import LanguageModel

HELP = "list the methods, or explain one"

TASKS = 8
"""How many tasks weights are counted for, unless the user says it."""


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    first, _ = _parser(prog, None, help=False).parse_known_args(argv)

    from peml.methods.method import METHODS
    from prefixnas.base.options import FLAG, fields_of, make, resolve
    from prefixnas.base.plugins import load_plugin

    for plugin in first.plugin or ():
        load_plugin(plugin)
    cls: Any = METHODS.get(first.name) if first.name is not None else None
    args = vars(_parser(prog, cls, help=True).parse_args(argv))
    lm = _model(args["model"]) if args["model"] else None
    if cls is None:
        _list({name: METHODS.get(name) for name in METHODS.names()}, lm, args["count"])
        return 0
    given = {key: args[key] for key in fields_of({"": cls}) if args.get(key) is not None}
    method = make(cls, resolve({"method": cls}, [(FLAG, given)]))
    print(inspect.getdoc(inspect.getmodule(cls)) or inspect.getdoc(cls))
    print()
    for line in _facts(method, lm, args["count"]):
        print(line)
    return 0


def _parser(prog: str, cls: type[Any] | None, *, help: bool) -> Parser:
    from prefixnas.commands.flags import add_flags

    parser = Parser(prog=prog, description=HELP if help else None, add_help=help)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a method; its keys are flags then")
    parser.add_argument("--model", help="count the weights in this model, without training")
    parser.add_argument("--count", type=positive, default=TASKS, metavar="N", help="of N tasks (8)")
    parser.add_argument("--plugin", nargs="*", help="modules or .py files that register methods")
    if cls is not None:
        add_flags(parser, "keys", cls)
    return parser


def _model(name: str) -> LanguageModel:
    from peml.model.model import load_language_model
    from peml.model.quiet import quiet_libraries

    quiet_libraries()
    return load_language_model(name)


def _weights(method: Method, lm: LanguageModel, tasks: int) -> tuple[int, int]:
    """Return how many numbers train, and how many take part in a pass of one task."""
    from peml.methods.method import Setting, attach_method

    names = tuple(f"task{number}" for number in range(tasks))
    attached = attach_method(method, lm, Setting(names, total_steps=1000))
    found = sum(parameter.numel() for parameter in attached.parameters())
    used = attached.weights_in_use()
    attached.detach()
    return found, used


def _list(methods: dict[str, Any], lm: LanguageModel | None, tasks: int) -> None:
    from prefixnas.report.grid import Grid, Number
    from prefixnas.report.terminal import Terminal

    columns: list[Any] = ["method", "task", "merges", "what it does"]
    columns += [Number("weights"), Number("in use")] if lm is not None else []
    rows = []
    for name, cls in methods.items():
        told = (inspect.getdoc(cls) or "").splitlines()[0]
        row = [name, "yes" if cls.needs_task else "no", cls.merges, told]
        if lm is not None:
            row += [f"{count:,}" for count in _weights(cls(), lm, tasks)]
        rows.append(row)
    Terminal().print(Grid(columns, rows))


def _facts(method: Method, lm: LanguageModel | None, tasks: int) -> list[str]:
    """Return what is to be known of a method, one line each."""
    needed = "every pass is told its task" if method.needs_task else "passes need none"
    merged = {
        "always": "merges into the weights",
        "per task": "merges into the weights of a model for each task",
        "no": "does not merge",
    }
    lines = [f"task     {needed}", f"merging  {merged[method.merges]}"]
    if lm is not None:
        trained, used = _weights(method, lm, tasks)
        lines.append(f"weights  {trained:,} train in {lm.name} for {tasks} tasks")
        lines.append(f"in use   {used:,} in a pass of one task")
    return lines
