"""The commands that faults are tried on, as small as they can be, and what each must leave."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.prefixnas.experiments.small import small
from tests.workbench import write_model, write_task

PREFIXNAS, PEML = "prefixnas", "peml"

CLOCK = ("time", "began", "seconds", "peak_memory", "peak_device_memory")
"""Keys that no two runs have in common."""

WENT_BACK = b"the run goes on from the checkpoint before it"
"""In the warning of a run whose last checkpoint was damaged, which is all that it differs in."""

Result = Mapping[str, str]
"""Names below a folder with a hash of what counts in them."""


@dataclass(frozen=True)
class Command:
    """A command that is begun, and goes on after a fault.

    Attributes:
        program: `prefixnas` or `peml`.
        first: The arguments it is begun with.
        again: Those it goes on with.
        result: Returns what it left.
        before: Puts what it needs in the place of `OUT`.
        goes_on: Whether it takes up what is there; else it does everything anew.
    """

    name: str
    program: str
    first: Sequence[str]
    again: Sequence[str]
    result: Callable[[Path], Result]
    before: Callable[[Path], None] = lambda out: None

    def clear(self, out: Path) -> None:
        """Make `out` what it is before the command."""
        shutil.rmtree(out, ignore_errors=True)
        self.before(out)


def commands(place: Path) -> dict[str, Command]:
    """Return all commands, whose data `prepare` has put into a folder and whose out is `out`."""
    out = str(place / "work" / "out")
    model = ["--model", str(place / "llama"), "--tasks", str(place / "mood"), "--steps", "4"]
    model += ["--prefix-length", "2", "--lora-rank", "2", "--batch-size", "2"]
    model += ["--checkpoint-every", "1", "--baseline", "none", "--out", out]
    tabular = ["--objective", "tabular", "--space", "tabular", "--eval-every", "1"]
    tabular += ["--checkpoint-every", "2"]
    trials = [*tabular, "--strategy", "tpe", "--trials", "2", "--steps", "4", "--out", out]
    cells = [*tabular, "--strategies", "random,tpe", "--trials", "2", "--seeds", "0"]
    cells += ["--budget", "4", "--out", out]
    study = [str(place / "study.yaml"), "--out", out]
    found = [
        _resumed("search", PREFIXNAS, ["search", *model], of_run),
        _resumed("search by trials", PREFIXNAS, ["search", *trials], of_run),
        _resumed("train", PEML, ["train", *model], of_run),
        *(_export(place, out, format) for format in ("merged", "peft", "peml")),
        _export(place, out, "peml", "export into a folder", lambda folder: folder.mkdir()),
        _report(place, out),
        _resumed("tune", PREFIXNAS, ["tune", *study], of_study),
        _resumed("compare", PREFIXNAS, ["compare", *cells], of_comparison),
    ]
    return {command.name: command for command in found}


def _resumed(
    name: str, program: str, first: list[str], result: Callable[[Path], Result]
) -> Command:
    """Return a command that goes on by `--resume`, wherever it was killed."""
    return Command(name, program, first, [*first, "--resume"], result)


def _export(
    place: Path,
    out: str,
    format: str,
    name: str | None = None,
    before: Callable[[Path], None] = lambda out: None,
) -> Command:
    argv = ["export", str(place / "kept" / "run"), out, "--format", format]
    return Command(name or f"export {format}", PEML, argv, argv, of_folder, before)


def _report(place: Path, out: str) -> Command:
    def copy(folder: Path) -> None:
        shutil.copytree(place / "kept" / "run", folder)

    return Command("report", PREFIXNAS, ["report", out], ["report", out], of_run, copy)


def prepare(place: Path) -> None:
    """Write a model, a task and a study; what `run` holds is made by the search itself."""
    write_model(place / "llama", "llama")
    write_task(place / "mood", "mood", 8, 4)
    small(place / "study.yaml", trials=3, base__steps=4, hyperparameters__trials={"int": [1, 2]})
    (place / "work").mkdir()


# What a command left


def of_folder(folder: Path) -> dict[str, str]:
    """Return everything in a folder."""
    return {
        str(path.relative_to(folder)): "folder" if path.is_dir() else _content(path)
        for path in sorted(folder.rglob("*"))
    }


def of_run(folder: Path) -> dict[str, str]:
    """Return what counts in a run: no times, and of the checkpoint that it is there."""
    found = of_folder(folder)
    kept = {name: held for name, held in found.items() if not name.startswith("checkpoint/")}
    kept |= {name: "there" for name in found if name == "checkpoint/state.json"}
    return {name: held for name, held in kept.items() if Path(name).name != ".lock"}


def of_comparison(folder: Path) -> dict[str, str]:
    """Return what counts in a comparison: its runs and its tables."""
    return {
        name: held
        for name, held in of_folder(folder).items()
        if Path(name).name != ".lock" and Path(name).suffix != ".log" and "checkpoint/" not in name
    }


def of_study(folder: Path) -> dict[str, str]:
    """Return what counts in a study: its runs, and its trials as its storage knows them."""
    runs = {
        f"{run.name}/{name}": held
        for run in sorted((folder / "trials").iterdir())
        if run.is_dir()
        for name, held in of_run(run).items()
    }
    return runs | {"trials": _hash(json.dumps(trials_of(folder)).encode())}


def trials_of(folder: Path) -> list[dict[str, Any]]:
    """Return the trials of a study as the storage has them: state, parameters, scores."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.load_study(study_name="small", storage=storage)
    return [
        {
            "number": trial.number,
            "state": trial.state.name,
            "params": trial.params,
            "values": trial.values,
            "epochs": sorted(trial.intermediate_values.items()),
        }
        for trial in study.get_trials()
    ]


def _content(path: Path) -> str:
    data = path.read_bytes()
    shown = path.suffix in (".html", ".md", ".csv", ".png") or path.name == "summary.json"
    if path.parent.name == "checkpoint" or shown:
        return "there"  # they hold times, and are made of what is compared
    if path.suffix in (".json", ".jsonl"):
        lines = data.splitlines() if path.suffix == ".jsonl" else [data]
        kept = [json.loads(line) for line in lines if WENT_BACK not in line]
        data = json.dumps([_timeless(line) for line in kept]).encode()
    return _hash(data)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in CLOCK}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
