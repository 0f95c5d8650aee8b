"""`prefixnas experiment`: an experiment file under NNI, with its web interface."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import UserError
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from prefixnas.experiments.experiment import Experiment
    from prefixnas.experiments.nni.engine import Engine
    from prefixnas.experiments.nni.manager import Manager

HELP = "run an experiment file under NNI, with its web interface"

REMOTE = """\
WARNING: {url}
is open to the network. Whoever learns this address can look at the experiment, end it and its
trials, and read it on its way: it is not encrypted. `ssh -L` does without."""


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    if argv and argv[0] in ACTIONS:
        run, help = ACTIONS[argv[0]]
        return run(_parser(f"{prog} {argv[0]}", argv[0], help).parse_args(argv[1:]))
    parser(prog).parse_args(argv)
    raise AssertionError("the parser took an action that does not exist")


def parser(prog: str) -> Parser:
    """Return the parser of all actions."""
    parser = Parser(prog=prog, description="Run an experiment file under NNI.")
    offered = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    for name, (_, help) in ACTIONS.items():
        action = _parser(f"{prog} {name}", name, help)
        offered.add_parser(name, help=help, parents=[action], add_help=False)
    return parser


def _parser(prog: str, action: str, help: str) -> Parser:
    parser = Parser(prog=prog, description=help)
    parser.set_defaults(action=action)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="the experiment file")
    add("--out", type=Path, metavar="FOLDER", help="where it lies (default: studies/NAME)")
    add("--plugin", nargs="*", default=[], help="plugins that the file may import")
    if action == "export":
        add("--to", type=Path, metavar="TABLE", help="a .csv or .json file (default: trials.csv)")
    if action in ("create", "start", "resume", "view"):
        add(
            "--nni-python",
            type=Path,
            metavar="PATH",
            help="Python of NNI's environment (default: $PREFIXNAS_NNI_PYTHON, then this one)",
        )
        add("--port", help="port of the web interface (default: from the file)")
        add("--host", default="127.0.0.1", help="where it listens (default: %(default)s)")
        add("--allow-remote", action="store_true", help="let other machines reach it")
    if action in ("create", "start", "resume"):
        add("--concurrency", metavar="N", help="trials that run side by side")
        add("--tuner", metavar="NAME", help="optuna, or one of NNI's by name")
        add("--trials", type=positive, metavar="N", help="trials of the whole study")
    if action in ("start", "resume"):
        add("--wait", action="store_true", help="wait until all trials are over, then stop")
    add_output(parser)
    return parser


def _create(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    engine.create()
    Output.of(arguments).result({"folder": engine.folder}, f"folder: {engine.folder}")
    return 0


def _view(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    document, said = _announced(engine, engine.view())
    Output.of(arguments).result(document, said)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.waiting import wait

    engine, output = _engine(arguments), Output.of(arguments)
    try:
        manager = engine.start() if arguments.action == "start" else engine.resume()
        document, said = _announced(engine, manager)
        if not arguments.wait:
            output.result(document, said)
            return 0
        output.note(said)
        last = wait(manager)  # if the manager is gone, its trials go on
    except KeyboardInterrupt:
        engine.stop()
        print("interrupted; nothing of it runs, `resume` goes on", file=sys.stderr)
        return 130
    engine.stop()
    return _finish(engine.experiment, engine.folder, output, document, last)


def _finish(
    experiment: Experiment, folder: Path, output: Output, document: Mapping[str, Any], last: str
) -> int:
    """Show an experiment that was waited for, and the trials that failed."""
    from prefixnas.experiments.nni.table import open_study
    from prefixnas.experiments.rows import failures

    _show(experiment, folder, output, document)
    lost = failures(open_study(experiment, folder).rows())
    for line in lost:
        output.failed(line)
    return 1 if lost or last != "DONE" else 0


def _announced(engine: Engine, manager: Manager) -> tuple[dict[str, Any], str]:
    """Return where an experiment is to be seen, for programs and for people."""
    from prefixnas.experiments.nni.sockets import is_loopback

    lines = [f"web interface: {manager.rest.url}", f"folder: {engine.folder}"]
    if not is_loopback(manager.host):
        url = manager.rest.url.replace("127.0.0.1", manager.host)
        print(REMOTE.format(url=url), file=sys.stderr, flush=True)
    return {"folder": engine.folder, "url": manager.rest.url}, "\n".join(lines)


def _status(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.manager import living_manager

    experiment, folder = _load(arguments)
    manager = living_manager(folder)
    if manager is None:
        said = "not running"
    else:
        try:
            said = f"{manager.status()}, {manager.rest.url}"
        except OSError as error:
            said = f"runs, but does not answer: {error}"
    document = {"folder": folder, "nni": said}
    _show(experiment, folder, Output.of(arguments), document, f"NNI: {said}")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.engine import settle
    from prefixnas.experiments.nni.manager import stop_manager
    from prefixnas.experiments.nni.processes import processes_of

    folder = _folder(arguments, _name(arguments.file))
    running = len(processes_of(folder))
    stop_manager(folder)
    said = f"processes ended: {running}" if running else "nothing was running"
    Output.of(arguments).result({"folder": folder, "ended": running}, said)
    settle(*_load(arguments))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.table import open_study, write_table

    experiment, folder = _load(arguments)
    path = arguments.to or folder / "trials.csv"
    write_table(open_study(experiment, folder), path)
    Output.of(arguments).result({"table": path}, str(path))
    return 0


def _show(
    experiment: Experiment, folder: Path, output: Output, document: Mapping[str, Any], *before: str
) -> None:
    from prefixnas.experiments.nni.table import open_study, read_rows, summary
    from prefixnas.experiments.view import whole_table

    study = open_study(experiment, folder)
    rows, best = read_rows(study), study.best()
    table, wide = whole_table(rows, experiment.target.direction)
    found = {
        "trials": [row.document() for row in rows],
        "best": None if best is None else best.document(),
    }
    output.result({**document, **found}, *before, table, summary(study), wide=wide)


def _load(arguments: argparse.Namespace, **changes: object) -> tuple[Experiment, Path]:
    from prefixnas.base.plugins import trust
    from prefixnas.experiments.experiment import load_experiment

    trust(arguments.plugin)
    experiment = load_experiment(arguments.file, changes)
    return experiment, _folder(arguments, experiment.name)


def _folder(arguments: argparse.Namespace, name: str) -> Path:
    folder: Path = arguments.out or Path("studies") / name
    return folder.resolve()  # its processes are found by this name


def _name(file: Path) -> str:
    """Return the experiment's name alone: what it runs may be broken and must end all the same."""
    from prefixnas.experiments.experiment import ExperimentFile
    from prefixnas.launch.config import read_config

    return str(read_config(file).get("name", ExperimentFile.name))


def _engine(arguments: argparse.Namespace) -> Engine:
    from prefixnas.experiments.nni.engine import Engine
    from prefixnas.experiments.nni.environment import find_environment
    from prefixnas.experiments.nni.settings import read_settings

    typed = {key: value for key, value in vars(arguments).items() if value is not None}
    experiment, folder = _load(arguments, **{key: typed[key] for key in {"trials"} & typed.keys()})
    flags = {"port", "concurrency", "tuner"} & typed.keys()
    settings = read_settings(experiment, {key: typed[key] for key in flags})
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder")
    environment = find_environment(arguments.nni_python)
    remote = arguments.allow_remote
    return Engine(experiment, settings, folder, environment, arguments.host, remote)


ACTIONS: Mapping[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "create": (_create, "check everything and write what NNI will be started with"),
    "start": (_run, "begin the experiment; it goes on when this command is over"),
    "status": (_status, "show the trials, from the study, and where the web interface is"),
    "view": (_view, "show an experiment that does not run in the web interface"),
    "stop": (_stop, "end the manager, all trials, and whatever they started"),
    "resume": (_run, "go on with an experiment that was stopped or killed"),
    "export": (_export, "write the trials, from the study, as a table"),
}
