"""`prefixnas tune`: many searches, to find hyper-parameters together with the architecture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prefixnas.base.console import Parser, positive
from prefixnas.base.errors import UserError
from prefixnas.base.files import is_empty, make_folder, refuse_used, write_text
from prefixnas.commands.output import Output, add_output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from prefixnas.experiments.experiment import Experiment
    from prefixnas.experiments.rows import Row
    from prefixnas.experiments.study import Study


BEGINNING = ".beginning"
"""Lies in the folder of a study while its problem is tried: a killed command is resumable then."""


HELP = "many searches: hyper-parameters and architecture together"


def main(argv: Sequence[str], prog: str) -> int:
    """Run the command."""
    flags = parser(prog).parse_args(argv)
    output = Output.of(flags)
    from prefixnas.base.extras import require
    from prefixnas.base.plugins import trust
    from prefixnas.experiments.experiment import load_experiment
    from prefixnas.experiments.nni.settings import read_settings

    changes = {
        name: value
        for name in ("trials", "workers", "storage", "sampler", "pruner")
        if (value := getattr(flags, name)) is not None
    }
    for module in ("optuna", "matplotlib"):
        require(module, "a study")
    trust(flags.plugin)
    experiment = load_experiment(flags.file, changes)
    read_settings(experiment)  # the same file is for every engine
    if flags.dry_run:
        shown = _extent(experiment) + experiment.dump()
        output.result({"experiment": experiment.resolved()}, shown.rstrip("\n"))
        return 0
    folder = flags.out or Path("studies") / experiment.name
    return _tune(experiment, folder, output, resume=flags.resume)


def parser(prog: str) -> Parser:
    """Return the command's parser."""
    parser = Parser(prog=prog, description="Find hyper-parameters and architecture together.")
    parser.add_argument("file", type=Path, metavar="FILE", help="the experiment, as YAML")
    parser.add_argument(
        "--out", type=Path, metavar="STUDY", help="folder of the study (default: studies/NAME)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with --out, if it had begun, or join it"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved file, stop")
    parser.add_argument("--plugin", nargs="*", default=[], help="plugins that the file may import")
    parser.add_argument("--workers", type=positive, metavar="N", help="trials side by side")
    parser.add_argument("--trials", type=positive, metavar="N", help="trials of the study")
    parser.add_argument("--storage", metavar="FILE/URL", help="journal, SQLite file or database")
    parser.add_argument("--sampler", metavar="NAME", help="one of Optuna's samplers")
    parser.add_argument("--pruner", metavar="NAME", help="one of Optuna's pruners, or none")
    add_output(parser)
    return parser


def _extent(experiment: Experiment) -> str:
    """Say, as a comment in YAML, how much there is to do at most."""
    steps = max(values["steps"] for values in experiment.searches)
    epochs = experiment.epochs() or 0
    trials, workers = experiment.trials, experiment.file.workers
    return (
        f"# {trials:,} trials, {workers} side by side, of at most {steps:,} steps and {epochs:,} "
        f"epochs each:\n# {trials * steps:,} steps and {trials * epochs:,} epochs' evaluations if "
        "nothing ends early. One trial\n# (--trials 1) shows how long they take here.\n"
    )


def _tune(experiment: Experiment, folder: Path, output: Output, *, resume: bool) -> int:
    from prefixnas.experiments.study import Study
    from prefixnas.experiments.study_report import write_study_report
    from prefixnas.experiments.tune import tune
    from prefixnas.experiments.view import open_view
    from prefixnas.launch.check import check_problem

    begun = Study.begun(experiment, folder)
    if begun and not resume:
        raise UserError(
            f"{folder}: the study {experiment.name!r} is there already; add --resume to go on "
            "with it or to join it, or take another name or --out"
        )
    # An empty folder is one whose study was killed before it could be marked.
    empty = folder.is_dir() and is_empty(folder)
    interrupted = empty or (folder / BEGINNING).is_file()
    if not begun:
        if not interrupted:
            refuse_used(folder, BEGINNING, "study")
        with _beginning(folder):
            check_problem([experiment.example()], experiment.target.metric, experiment.where)
    study = Study.open(experiment, folder)
    (folder / BEGINNING).unlink(missing_ok=True)
    try:
        view = nullcontext(_no_view) if output.quiet else open_view(experiment.target.direction)
        with view as show:
            tune(study, experiment.file.workers, show, output.note)
    except BaseException:
        with suppress(UserError):  # what went wrong first is what is said
            write_study_report(study)
        raise
    write_study_report(study)
    return _finish(study, output)


@contextmanager
def _beginning(folder: Path) -> Iterator[None]:
    """Mark the folder of a study that is about to begin; a mistake leaves nothing behind."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    write_text(folder / BEGINNING, "")
    try:
        yield
    except UserError:
        (folder / BEGINNING).unlink(missing_ok=True)
        with suppress(OSError):  # another process may begin there, too
            for path in made:
                path.rmdir()
        raise


def _no_view(rows: Sequence[Row]) -> None:
    pass


def _finish(study: Study, output: Output) -> int:
    from prefixnas.experiments.rows import failures
    from prefixnas.experiments.view import describe, whole_table

    rows, best = study.rows(), study.best()
    document = {
        "study": study.folder,
        "trials": [row.document() for row in rows],
        "best": None if best is None else best.document(),
    }
    table, wide = whole_table(rows, study.experiment.target.direction)
    parts: list[RenderableType] = [table, f"study: {study.folder}"]
    if best is not None:
        parts.append(f"best: trial {best.number}, score {best.score:.4f} ({describe(best.params)})")
        parts.append(f"run directory: {study.trial_folder(best.number)}")
    output.result(document, *parts, wide=wide)
    lost = [*failures(rows), *(["no trial is complete"] if best is None else [])]
    for line in lost:
        output.failed(line)
    return 1 if lost else 0
