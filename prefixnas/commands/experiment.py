"""`prefixnas experiment`: an experiment file under NNI, with its web interface."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefixnas.console import Parser, positive
from prefixnas.errors import UserError

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
    arguments = _parser(prog).parse_args(argv)
    action: Callable[[argparse.Namespace], int] = arguments.run
    return action(arguments)


def _parser(prog: str) -> Parser:
    parser = Parser(prog=prog, description="Run an experiment file under NNI.")
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="COMMAND", parser_class=Parser
    )

    def add(name: str, run: Callable[[argparse.Namespace], int], help: str) -> Parser:
        made: Parser = actions.add_parser(name, help=help, description=help)
        made.set_defaults(run=run)
        made.add_argument("file", type=Path, metavar="FILE", help="the experiment file")
        made.add_argument(
            "--out", type=Path, metavar="FOLDER", help="where it lies (default: studies/NAME)"
        )
        return made

    def add_nni(made: Parser) -> None:
        made.add_argument(
            "--nni-python",
            type=Path,
            metavar="PATH",
            help="Python of NNI's environment (default: $PREFIXNAS_NNI_PYTHON, then this one)",
        )
        made.add_argument("--port", help="port of the web interface")
        made.add_argument("--host", default="127.0.0.1", help="where it listens (%(default)s)")
        made.add_argument(
            "--allow-remote", action="store_true", help="let others than this machine reach it"
        )

    def add_run(made: Parser) -> None:
        made.add_argument("--concurrency", help="trials that run side by side")
        made.add_argument("--tuner", help="optuna, or one of NNI's by name")
        made.add_argument("--trials", type=positive, help="trials of the whole study")
        made.add_argument(
            "--wait", action="store_true", help="wait until all trials are over, then stop"
        )

    for name, run, help in (
        ("create", _create, "check everything and write what NNI will be started with"),
        ("start", _start, "begin the experiment; it goes on when this command is over"),
        ("resume", _resume, "go on with an experiment that was stopped or killed"),
    ):
        made = add(name, run, help)
        add_nni(made)
        add_run(made)
    add_nni(add("view", _view, "show an experiment that is not running in the web interface"))
    add("status", _status, "show the trials, from the study, and where the web interface is")
    add("stop", _stop, "end the manager, all trials, and whatever they started")
    export = add("export", _export, "write the trials, from the study, as a table")
    export.add_argument("--to", type=Path, metavar="TABLE", help="a .csv or .json file")
    return parser


def _create(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    engine.create()
    print(f"folder: {engine.folder}")
    return 0


def _start(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    return _go_on(arguments, engine, engine.start())


def _resume(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    return _go_on(arguments, engine, engine.resume())


def _view(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    _announce(engine, engine.view())
    return 0


def _go_on(arguments: argparse.Namespace, engine: Engine, manager: Manager) -> int:
    _announce(engine, manager)
    if not arguments.wait:
        return 0
    from prefixnas.experiments.nni.engine import wait

    try:
        last = wait(manager)
    finally:  # with Ctrl-C, too: nothing is left behind, `resume` goes on
        engine.stop()
    _show(engine.experiment, engine.folder)
    return 0 if last == "DONE" else 1


def _announce(engine: Engine, manager: Manager) -> None:
    from prefixnas.experiments.nni.sockets import is_loopback

    print(f"web interface: {manager.rest.url}")
    print(f"folder: {engine.folder}")
    if not is_loopback(manager.host):
        print(REMOTE.format(url=manager.rest.url.replace("127.0.0.1", manager.host)))


def _status(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.manager import living_manager

    experiment, folder = _load(arguments)
    manager = living_manager(folder)
    if manager is None:
        print("NNI: not running")
    else:
        try:
            print(f"NNI: {manager.status()}, {manager.rest.url}")
        except OSError as error:
            print(f"NNI: runs, but does not answer: {error}")
    _show(experiment, folder)
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.engine import settle
    from prefixnas.experiments.nni.manager import stop_manager
    from prefixnas.experiments.nni.processes import processes_of

    folder = _folder(arguments, _name(arguments.file))
    running = len(processes_of(folder))
    stop_manager(folder)
    print(f"ended {running} processes" if running else "nothing was running")
    settle(*_load(arguments))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.table import write_table

    experiment, folder = _load(arguments)
    path = arguments.to or folder / "trials.csv"
    write_table(experiment, folder, path)
    print(path)
    return 0


def _show(experiment: Experiment, folder: Path) -> None:
    from rich.console import Console

    from prefixnas.experiments.nni.table import summary, trial_table

    console = Console()
    console.print(trial_table(experiment, folder))
    console.print(summary(experiment, folder), highlight=False)


def _load(arguments: argparse.Namespace, **changes: object) -> tuple[Experiment, Path]:
    from prefixnas.experiments.experiment import load_experiment

    experiment = load_experiment(arguments.file, changes)
    return experiment, _folder(arguments, experiment.name)


def _folder(arguments: argparse.Namespace, name: str) -> Path:
    folder: Path = arguments.out or Path("studies") / name
    return folder.absolute()


def _name(file: Path) -> str:
    """Return the experiment's name alone: what it runs may be broken and must end all the same."""
    from prefixnas.config import read_config
    from prefixnas.experiments.experiment import ExperimentFile

    return str(read_config(file).get("name", ExperimentFile.name))


def _engine(arguments: argparse.Namespace) -> Engine:
    from prefixnas.experiments.nni.engine import Engine
    from prefixnas.experiments.nni.environment import find_environment
    from prefixnas.experiments.nni.settings import read_settings

    given = vars(arguments)
    trials = given.get("trials")
    experiment, folder = _load(arguments, **({} if trials is None else {"trials": trials}))
    flags = {key: given.get(key) for key in ("port", "concurrency", "tuner")}
    settings = read_settings(
        experiment, {key: value for key, value in flags.items() if value is not None}
    )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder")
    environment = find_environment(arguments.nni_python)
    return Engine(
        experiment,
        settings,
        folder,
        environment,
        arguments.host,
        arguments.allow_remote,
    )
