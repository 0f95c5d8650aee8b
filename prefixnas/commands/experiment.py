"""`prefixnas experiment`: an experiment file under NNI, with its web interface."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import UserError

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
    parser = Parser(prog=prog, description="Run an experiment file under NNI.")
    offered = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    for name, (_, help) in ACTIONS.items():
        offered.add_parser(name, help=help, add_help=False)
    parser.parse_args(argv)
    raise AssertionError("the parser took an action that does not exist")


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
    return parser


def _create(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    engine.create()
    print(f"folder: {engine.folder}")
    return 0


def _view(arguments: argparse.Namespace) -> int:
    engine = _engine(arguments)
    _announce(engine, engine.view())
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.waiting import wait

    engine = _engine(arguments)
    try:
        manager = engine.start() if arguments.action == "start" else engine.resume()
        _announce(engine, manager)
        if not arguments.wait:
            return 0
        last = wait(manager)  # if the manager is gone, its trials go on
    except KeyboardInterrupt:
        engine.stop()
        print("interrupted; nothing of it runs, `resume` goes on", file=sys.stderr)
        return 130
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
        said = "not running"
    else:
        try:
            said = f"{manager.status()}, {manager.rest.url}"
        except OSError as error:
            said = f"runs, but does not answer: {error}"
    _show(experiment, folder, f"NNI: {said}\n")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.engine import settle
    from prefixnas.experiments.nni.manager import stop_manager
    from prefixnas.experiments.nni.processes import processes_of

    folder = _folder(arguments, _name(arguments.file))
    running = len(processes_of(folder))
    stop_manager(folder)
    print(f"processes ended: {running}" if running else "nothing was running")
    settle(*_load(arguments))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from prefixnas.experiments.nni.table import open_study, write_table

    experiment, folder = _load(arguments)
    path = arguments.to or folder / "trials.csv"
    write_table(open_study(experiment, folder), path)
    print(path)
    return 0


def _show(experiment: Experiment, folder: Path, before: str = "") -> None:
    from prefixnas.experiments.nni.table import open_study, read_rows, summary
    from prefixnas.experiments.view import print_trials

    study = open_study(experiment, folder)
    print(before, end="")
    print_trials(read_rows(study), experiment.target.direction)
    print(summary(study))


def _load(arguments: argparse.Namespace, **changes: object) -> tuple[Experiment, Path]:
    from prefixnas.base.plugins import trust
    from prefixnas.experiments.experiment import load_experiment

    trust(arguments.plugin)
    experiment = load_experiment(arguments.file, changes)
    return experiment, _folder(arguments, experiment.name)


def _folder(arguments: argparse.Namespace, name: str) -> Path:
    folder: Path = arguments.out or Path("studies") / name
    return folder.absolute()


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
