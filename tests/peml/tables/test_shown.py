"""What a table shows of runs whose scores are known."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from peml.tables.file import read_table
from peml.tables.grids import remarks
from peml.tables.latex import escaped, latex
from peml.tables.plan import Table, plan_table
from peml.tables.summary import summarise
from peml.tables.write import render, write_table
from prefixnas.base.errors import UserError
from prefixnas.report.grid import Grid, Number
from tests.peml.tables.files import small, write

SCORES = {"LoRA": [0.5, 0.6, 0.7], "PEML": [0.6, 0.8, 0.7]}


def record(out: Path, row: str, factor: str, seed: int, score: float, **more: Any) -> None:
    """Write a record as the forerunner of this command did, and what is known besides."""
    folder = out / row / f"x{factor}" / f"seed{seed}"
    folder.mkdir(parents=True)
    tasks = {"mood": score - 0.1, "order": score + 0.1}
    data = {"selection": score, "validation": score, "tasks": tasks, "weights": 7, **more}
    (folder / "row.json").write_text(json.dumps(data))


@pytest.fixture
def table(bench: Path, tmp_path: Path) -> Table:
    path = write(tmp_path / "table.yaml", small(bench, seeds=[0, 1, 2]))
    return plan_table(read_table(path), str(path))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    for row, scores in SCORES.items():
        record(folder, row, "1", 100, 0.4 if row == "LoRA" else 0.3)
        record(folder, row, "2", 100, 0.3 if row == "LoRA" else 0.4)
        for seed, score in enumerate(scores):
            record(folder, row, "1" if row == "LoRA" else "2", seed, score, saved_bytes=2**20)
    return folder


def test_the_best_rate_on_the_selection_split_is_taken(table: Table, out: Path) -> None:
    assert [(row.label, row.factor) for row in summarise(table, out)] == [("LoRA", 1), ("PEML", 2)]


def test_a_row_shows_nothing_before_all_of_its_rates_are_tried(table: Table, out: Path) -> None:
    (out / "PEML" / "x1" / "seed100" / "row.json").unlink()
    _, peml = summarise(table, out)
    assert peml.factor is None and not peml.records


def test_the_difference_is_that_of_students_t_over_seeds(table: Table, out: Path) -> None:
    _, peml = summarise(table, out)
    found = peml.over["LoRA"]
    assert found is not None
    pairs = [a - b for a, b in zip(SCORES["PEML"], SCORES["LoRA"], strict=True)]
    half = stats.t.ppf(0.975, 2) * stats.sem(pairs)
    assert found.mean == pytest.approx(sum(pairs) / 3)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    assert peml.average == pytest.approx((0.7, 0.1))


def test_all_formats_hold_the_same_numbers(table: Table, out: Path) -> None:
    from prefixnas.report.terminal import Terminal

    shown = render(table, write_table(table, out, {}), {})
    console = Terminal(width=240, record=True, quiet=False, file=(out / "terminal").open("w"))
    console.print(shown)
    texts = [(out / f"table.{end}").read_text() for end in ("md", "tex")]
    texts.append(console.export_text())
    pairs = [a - b for a, b in zip(SCORES["PEML"], SCORES["LoRA"], strict=True)]
    half = stats.t.ppf(0.975, 2) * stats.sem(pairs)
    for text in texts:
        text = text.replace(r"$\pm$", "±")
        for number in ("0.600 ± 0.100", "0.500 ± 0.100", f"+0.100 ± {half:.3f}"):
            assert number in text
        assert "the paper's average" in text and "nothing of this was measured here" in text
    with (out / "table.csv").open() as stream:
        lora, peml = csv.DictReader(stream)
    assert float(peml["average"]) == pytest.approx(0.7)
    assert float(peml["minus LoRA, high"]) == pytest.approx(0.1 + half)
    assert (lora["the paper's average"], peml["the paper's average"]) == ("0.8", "")
    with (out / "runs.csv").open() as stream:
        runs = list(csv.DictReader(stream))
    assert len(runs) == 2 * (2 + 3)
    assert [run["trial"] for run in runs].count("True") == 4
    assert (out / "table.png").is_file()


def test_columns_stand_in_the_order_of_the_file(bench: Path, tmp_path: Path, out: Path) -> None:
    tasks = [str(bench / "order"), str(bench / "mood")]
    path = write(tmp_path / "turned.yaml", small(bench, tasks=tasks))
    write_table(plan_table(read_table(path), str(path)), out, {})
    head = (out / "table.csv").read_text().partition("\n")[0].split(",")
    assert head.index("order") < head.index("mood") < head.index("average")


def test_records_of_other_tasks_or_metrics_are_refused(
    bench: Path, tmp_path: Path, table: Table, out: Path
) -> None:
    path = write(tmp_path / "less.yaml", small(bench, tasks=[str(bench / "mood")]))
    with pytest.raises(UserError, match="scored on other tasks"):
        summarise(plan_table(read_table(path), str(path)), out)
    file = out / "LoRA" / "x1" / "seed0" / "row.json"
    data = json.loads(file.read_text())
    metrics = {"mood": ["macro_f1"], "order": ["accuracy"]}
    file.write_text(json.dumps({**data, "metrics": metrics}))
    with pytest.raises(UserError, match="LoRA, seed 0: the run was scored"):
        summarise(table, out)
    file.write_text(json.dumps({**data, "validation": None, "tasks": {}}))
    with pytest.raises(UserError, match="LoRA, seed 0: the run only tried rates"):
        summarise(table, out)
    file.write_text(json.dumps(data))
    trial = out / "LoRA" / "x1" / "seed100" / "row.json"
    blind = {**json.loads(trial.read_text()), "validation": None, "tasks": {}, "metrics": metrics}
    trial.write_text(json.dumps(blind))
    with pytest.raises(UserError, match="LoRA, rates x 1, seed 100: the run was scored"):
        summarise(table, out)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"selection": 1}', '{"tasks": 3}'])
def test_a_damaged_record_is_named(table: Table, out: Path, text: str) -> None:
    (out / "LoRA" / "x1" / "seed0" / "row.json").write_text(text)
    with pytest.raises(UserError, match=r"row\.json: no record of a run"):
        summarise(table, out)


def test_a_single_seed_has_no_interval(table: Table, out: Path) -> None:
    for seed in (1, 2):
        (out / "PEML" / "x2" / f"seed{seed}" / "row.json").unlink()
    _, peml = summarise(table, out)
    found = peml.over["LoRA"]
    assert found is not None and math.isinf(found.high)
    write_table(table, out, {})
    assert "| +0.100 |" in (out / "table.md").read_text()


def test_a_row_is_no_argument_of_the_line_before() -> None:
    assert escaped("[1] *b* a|b <c> `d`") == (
        r"{[}1] {*}b{*} a\textbar{}b \textless{}c\textgreater{} \textasciigrave{}d\textasciigrave{}"
    )
    text = latex(Grid(["", Number("n")], [["[a]", "1"], ["*b", "2"]]), "[c]")
    after = re.findall(r"(?:\\\\|\\[a-z]+rule)\s*([^\s\\])", text)
    assert after and not {"[", "*"} & {*after}


def test_latex_obeys_nothing_of_a_label() -> None:
    assert escaped("50 % of a_b & {x} ± -1 \\ n-1") == (
        r"50 \% of a\_b \& \{x\} $\pm$ $-$1 \textbackslash{} n-1"
    )


@pytest.mark.parametrize(("trial_steps", "short"), [(4, True), (6, False), (None, False)])
def test_a_trial_that_is_shorter_than_the_runs_is_said(
    trial_steps: int | None, short: bool, bench: Path, out: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "table.yaml", small(bench, seeds=[0, 1, 2], trial_steps=trial_steps))
    table = plan_table(read_table(path), str(path))
    found = remarks(table, summarise(table, out), {})
    assert ("They were tried over 4 of 6 steps: short trials prefer fast rates" in found) == short
