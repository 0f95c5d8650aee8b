"""`peml methods`: list the ways to fine-tune, or explain one; count its weights in a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefixnas.base.console import Parser, positive
from prefixnas.commands.output import Output, add_output

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
    parsed = _parser(prog, cls, help=True).parse_args(argv)
    args, output = vars(parsed), Output.of(parsed)
    lm = _model(args["model"]) if args["model"] else None
    if cls is None:
        _list({name: METHODS.get(name) for name in METHODS.names()}, lm, args["count"], output)
        return 0
    given = {key: args[key] for key in fields_of({"": cls}) if args.get(key) is not None}
    method = make(cls, resolve({"method": cls}, [(FLAG, given)]))
    about = inspect.getdoc(inspect.getmodule(cls)) or inspect.getdoc(cls) or ""
    document = {"method": args["name"], "about": about, **_document(cls, method, lm, args["count"])}
    output.result(document, f"{about}\n", *_facts(document, lm, args["count"]))
    return 0


def parser(prog: str) -> Parser:
    """Return the command's parser; a method's keys are flags only where it is named."""
    return _parser(prog, None, help=True)


def _parser(prog: str, cls: type[Any] | None, *, help: bool) -> Parser:
    from prefixnas.commands.flags import add_flags

    parser = Parser(prog=prog, description=HELP if help else None, add_help=help)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a method; its keys are flags then")
    parser.add_argument("--model", help="count the weights in this model, without training")
    parser.add_argument("--count", type=positive, default=TASKS, metavar="N", help="of N tasks (8)")
    parser.add_argument("--plugin", nargs="*", help="modules or .py files that register methods")
    add_output(parser)
    if cls is not None:
        add_flags(parser, "keys", cls)
    return parser


def _model(name: str) -> LanguageModel:
    from peml.model.load import load_language_model
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


def _document(cls: Any, method: Method, lm: LanguageModel | None, tasks: int) -> dict[str, Any]:
    """Return what is to be known of a method, the numbers of a model's weights with it."""
    told = (inspect.getdoc(cls) or "").splitlines()[0]
    found = {"needs_task": cls.needs_task, "merges": cls.merges, "summary": told}
    if lm is None:
        return found
    trained, used = _weights(method, lm, tasks)
    return {**found, "tasks": tasks, "weights": trained, "weights_in_use": used}


def _list(methods: dict[str, Any], lm: LanguageModel | None, tasks: int, output: Output) -> None:
    from prefixnas.report.grid import Grid, Number

    columns: list[Any] = ["method", "task", "merges", "what it does"]
    columns += [Number("weights"), Number("in use")] if lm is not None else []
    documents = [{"method": name, **_listed(cls, lm, tasks)} for name, cls in methods.items()]
    rows = []
    for found in documents:
        row = [found["method"], "yes" if found["needs_task"] else "no", found["merges"]]
        row.append(found["summary"])
        if lm is not None:
            counts = (found["weights"], found["weights_in_use"])
            row += ["-" if count is None else f"{count:,}" for count in counts]
        rows.append(row)
    refused = [each["refused"] for each in documents if "refused" in each]
    output.result({"methods": documents}, Grid(columns, rows), *refused)


def _listed(cls: Any, lm: LanguageModel | None, tasks: int) -> dict[str, Any]:
    """Return what is to be known of a method, also of one that the model can't have."""
    from prefixnas.base.errors import UserError

    try:
        return _document(cls, cls(), lm, tasks)
    except UserError as error:
        none = {"tasks": tasks, "weights": None, "weights_in_use": None}
        return {**_document(cls, cls(), None, tasks), **none, "refused": str(error)}


def _facts(document: Mapping[str, Any], lm: LanguageModel | None, tasks: int) -> list[str]:
    """Return what is to be known of a method, one line each."""
    needed = "every pass is told its task" if document["needs_task"] else "passes need none"
    merged = {
        "always": "merges into the weights",
        "per task": "merges into the weights of a model for each task",
        "no": "does not merge",
    }
    lines = [f"task     {needed}", f"merging  {merged[document['merges']]}"]
    if lm is not None:
        trained, used = document["weights"], document["weights_in_use"]
        lines.append(f"weights  {trained:,} train in {lm.name} for {tasks} tasks")
        lines.append(f"in use   {used:,} in a pass of one task")
    return lines
