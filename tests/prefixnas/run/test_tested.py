"""The split "test": scored once for every trained model, and nothing is chosen by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prefixnas.base.errors import UserError
from prefixnas.report.run_page import write_report
from prefixnas.report.tables import fitting_score_table, show
from prefixnas.run.evaluation import TRAINED, Evaluation, Split
from prefixnas.run.objective import Objective
from prefixnas.run.record import read_record
from prefixnas.run.result import SearchResult
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.space.loading import load_space
from prefixnas.strategies import Darts
from prefixnas.testing import ToyObjective
from tests.pages import strangers, unheld


class Tested(ToyObjective):
    """The toy problem with a test split, whose scores may be turned."""

    tested = True

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign, self.seen = sign, list[str]()
        self._data["test"] = tuple(part[:5] for part in self._data["validation"])

    def evaluate(self, split: Split) -> Evaluation:
        self.seen.append(split)
        found = super().evaluate(split)
        if split != "test":
            return found
        scores = {task: self.sign * score for task, score in found.task_scores.items()}
        return Evaluation({task: {"negative_mse": s} for task, s in scores.items()}, scores)


def run(folder: Path, objective: Objective, **options: Any) -> SearchResult:
    made = Run(folder, load_space("default"), objective, Budget(4, 4), **options)
    return search(made, Darts())


def test_a_blind_run_sees_neither_validation_nor_test_data_and_trains_the_same(
    tmp_path: Path,
) -> None:
    seeing, blind = Tested(), Tested()
    found = run(tmp_path / "seeing", seeing)
    chose = run(tmp_path / "blind", blind, blind=True)
    assert {"validation", "test"} <= set(seeing.seen) and set(blind.seen) == {"selection"}
    assert (chose.selected, chose.architecture) == (found.selected, found.architecture)
    assert {*chose.columns.values()} == {None} and chose.tested == {}
    with pytest.raises(UserError, match="blind"):
        chose.score  # noqa: B018
    write_report(tmp_path / "blind")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(show(tmp_path / "blind"))
    assert "state      finished" in shown.get() and "Scores on" not in shown.get()


def test_every_trained_model_is_tested_once_and_nothing_depends_on_it(tmp_path: Path) -> None:
    objective = Tested()
    found = run(tmp_path / "one", objective)
    assert list(found.tested) == ["linear alone", TRAINED]
    assert objective.seen.count("test") == len(found.tested)
    assert "untouched" not in found.tested
    turned = run(tmp_path / "two", Tested(sign=-1.0))
    plain = run(tmp_path / "three", ToyObjective())
    assert turned.columns == found.columns == plain.columns
    assert turned.architecture == found.architecture == plain.architecture
    assert turned.tested[TRAINED].score == -found.tested[TRAINED].score
    assert plain.tested == {}


def test_test_scores_are_kept_and_shown_apart(tmp_path: Path) -> None:
    found = run(tmp_path / "one", Tested())
    assert SearchResult.read(tmp_path / "one").tested == found.tested
    data = json.loads((tmp_path / "one" / "result.json").read_text())
    assert {label: part["score"] for label, part in data["test"].items()} == {
        label: part.score for label, part in found.tested.items()
    }
    record = read_record(tmp_path / "one")
    assert {label: part and part["score"] for label, part in record.tested().items()} == {
        label: part.score for label, part in found.tested.items()
    }
    titles = [str(part).strip() for part in show(tmp_path / "one").renderables]
    assert "Scores on the test split" in titles
    write_report(tmp_path / "one")
    assert strangers(tmp_path / "one") == []
    assert fitting_score_table(record.tested()).rows

    run(tmp_path / "plain", ToyObjective())
    assert "test" not in json.loads((tmp_path / "plain" / "result.json").read_text())
    titles = [str(part).strip() for part in show(tmp_path / "plain").renderables]
    assert "Scores on the test split" not in titles


def test_a_number_that_no_file_holds_is_found(tmp_path: Path) -> None:
    """The check of the pages is not blind: by heading, by place, and as far as digits go."""
    found = run(tmp_path / "one", Tested())
    page = write_report(tmp_path / "one")
    text = page.read_text()
    shown = f"{found.tested[TRAINED].score:.3f}"
    for part in text.split("<h2>")[1:]:
        if shown in part:
            page.write_text(text.replace(part, part.replace(shown, "-9.125")))
            heading = part.partition("<")[0]
            assert (heading, "-9.125") in strangers(tmp_path / "one")
    assert unheld("0.25 +12.5 % 1,800 1:05 0.1234", [0.2461, 12.54, 1800.0, 65.3, 0.12344]) == []
    assert unheld("0.25 1,800 1:05 -0.5", [0.2449, 1801.0, 67.0, 0.5]) == [
        *("1:05", "0.25", "1,800", "-0.5")
    ]
