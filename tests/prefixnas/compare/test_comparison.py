"""Comparisons: what is planned, what is refused, and the numbers in the tables."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from prefixnas.__main__ import main
from prefixnas.base.errors import UserError
from prefixnas.base.estimates import paired
from prefixnas.base.options import option
from prefixnas.base.processes import share_of_threads
from prefixnas.compare.cells import REFERENCES, Cell, refuse_other_cells
from prefixnas.compare.comparison import AVERAGE_RANDOM, Comparison
from prefixnas.compare.files import write_comparison
from prefixnas.compare.page import task_table, write_page
from prefixnas.compare.results import CellResult
from prefixnas.compare.runner import beside, unfinished
from prefixnas.compare.summary import HAND_MADE, RANDOM_SEARCH, Summary, summarise
from prefixnas.compare.tables import markdown
from prefixnas.compare.variants import CompareConfig
from prefixnas.run.objective import OBJECTIVES, ObjectiveConfig
from prefixnas.testing.toy import ToyObjective

pytestmark = pytest.mark.usefixtures("rendered")


@dataclass(frozen=True)
class ToyOptions(ObjectiveConfig):
    """The toy, with a hand-made module to compare with."""

    toy_width: int = option(8, "width", at_least=1)
    references: ClassVar[dict[str, dict[str, Any]]] = {"one tanh": {"space": "mlp"}}

    def build(self, total_steps: int, seed: int) -> ToyObjective:
        return ToyObjective(self.toy_width)


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    before = dict(OBJECTIVES._registered)
    OBJECTIVES.register("toy")(ToyOptions)
    yield
    OBJECTIVES._registered = before


def plan(layer: dict[str, Any] | None = None, **settings: Any) -> Comparison:
    settings.setdefault("seeds", [0, 1, 2])
    return Comparison.of(
        CompareConfig(**settings), [("test", {"objective": "toy", **(layer or {})})]
    )


# what is planned


def test_every_variant_runs_on_every_space_with_every_seed_at_one_budget(tmp_path: Path) -> None:
    asked = ["darts", "darts:relaxation=gumbel", "evolution"]
    cells = plan(space=["default", "paper"], strategies=asked, budget=40).cells(tmp_path)
    searches = {(c.space, c.label, c.seed) for c in cells if c.kind == "search"}
    labels = [*asked, "random"]  # random search is added
    assert searches == {(s, v, k) for s in ("default", "paper") for v in labels for k in (0, 1, 2)}
    assert {c.values["steps"] for c in cells} == {40}
    assert len({c.folder for c in cells}) == len(cells)
    gumbel = next(c for c in cells if c.label == asked[1])
    assert gumbel.values["relaxation"] == "gumbel"
    made = [c for c in cells if c.kind == "hand-made"]
    assert [(c.label, c.seed, c.values["space"]) for c in made] == [
        ("one tanh", k, "mlp") for k in (0, 1, 2)
    ]


def test_a_variant_sets_as_many_choices_as_it_names(tmp_path: Path) -> None:
    made = "default:set=activation=relu+set=layer0/activation=tanh"
    cells = plan(references=[made]).cells(tmp_path)
    (settings,) = {tuple(c.values["set"]) for c in cells if c.kind == "hand-made"}
    assert settings == ("activation=relu", "layer0/activation=tanh")
    with pytest.raises(UserError, match="key 'level' is given twice"):
        plan(strategies=["darts:level=joint+level=bilevel"])


def test_random_draws_are_single_architectures_with_seeds_of_their_own(tmp_path: Path) -> None:
    cells = plan({"trials": 5}, random_draws=2).cells(tmp_path)
    draws = [c for c in cells if c.kind == "draw"]
    assert all(c.values["strategy"] == "random" and c.values["trials"] == 1 for c in draws)
    assert sorted(c.values["seed"] for c in draws) == [0, 1, 2, 1000, 1001, 1002]
    assert [c.seed for c in draws] == [0, 0, 1, 1, 2, 2]
    searches = [c for c in cells if c.label == "random"]
    assert {c.values["trials"] for c in searches} == {5}


@pytest.mark.parametrize(
    ("strategies", "label", "trials"),
    [
        (["darts"], "random", 8),
        (["random"], "random", 8),
        (["random:trials=3"], "random:trials=3", 3),
        (["random:trials=1", "random:trials=4"], "random:trials=4", 4),
        (["random:weights=one-shot+trials=9"], "random", 8),
    ],
)
def test_random_search_is_always_there(
    strategies: list[str], label: str, trials: int, tmp_path: Path
) -> None:
    comparison = plan(strategies=strategies)
    assert comparison.random_search == label
    cells = [c for c in comparison.cells(tmp_path) if c.label == label]
    assert {int(c.values["trials"]) for c in cells} == {trials}


def test_one_run_a_seed_trains_the_objective_alone(tmp_path: Path) -> None:
    cells = plan(space=["default", "paper"]).cells(tmp_path)
    for seed in (0, 1, 2):
        assert sum(c.values["baseline"] != "none" for c in cells if c.seed == seed) == 1
    # It stays where it is when a comparison grows.
    (carrier,) = [c for c in cells if c.seed == 0 and c.values["baseline"] != "none"]
    assert carrier.kind == "draw" and carrier.values["baseline"] == "both"
    begin(carrier)
    grown = plan(space=["default", "paper"], references=["mlp", "one tanh"]).cells(tmp_path)
    trained = [c.folder for c in grown if c.seed == 0 and c.values["baseline"] != "none"]
    assert trained == [carrier.folder]


@pytest.mark.parametrize(
    ("given", "kept"), [("none", "none"), (False, "none"), ("alone", "alone"), (True, "alone")]
)
def test_what_is_trained_alone_can_be_chosen(given: str | bool, kept: str, tmp_path: Path) -> None:
    """True and False are what comparisons of version 0.1 hold."""
    cells = plan({"baseline": given}).cells(tmp_path)
    assert {c.values["baseline"] for c in cells} == {"none", kept}
    with pytest.raises(UserError, match=r"'baseline': unknown value 'lora'.*alone, both, none"):
        plan({"baseline": "lora"}).cells(tmp_path)


def begin(cell: Cell, **other: Any) -> None:
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.yaml").write_text(yaml.safe_dump({**cell.values, **other}))


def test_what_is_found_is_trained_anew_with_its_search_s_seed(tmp_path: Path) -> None:
    cells = plan(retrain=True, strategies=["random:trials=2"]).cells(tmp_path)
    again = [c for c in cells if c.kind == "retrained"]
    found = [c for c in cells if c.kind == "search"]
    assert [c.needs for c in again] == [c.folder for c in found]
    assert [c.values["seed"] for c in again] == [0, 1, 2]
    assert {c.values["strategy"] for c in again} == {"fixed"}
    assert [c.values["arch"] for c in again] == [str(c.folder) for c in found]
    assert all(
        cells.index(one) > cells.index(other) for one, other in zip(again, found, strict=True)
    )


def test_a_space_that_a_strategy_refuses_is_left_out_with_its_reason(tmp_path: Path) -> None:
    cells = plan(space=["default", "mlp"], strategies=["darts", "random"]).cells(tmp_path)
    refused = {(c.space, c.label) for c in cells if c.refused is not None}
    assert refused == {("mlp", "darts")}
    reason = next(c.refused for c in cells if c.refused is not None)
    assert "leaves no choice to alpha" in reason


def test_variants_as_a_mapping(tmp_path: Path) -> None:
    named: dict[str, dict[str, Any]] = {
        "soft / hard": {"strategy": "darts", "relaxation": "ste"},
        "random": {"trials": 2},
    }
    cells = plan(strategies=named).cells(tmp_path)
    (first, *_) = [c for c in cells if c.label == "soft / hard"]
    assert first.values["relaxation"] == "ste"
    assert first.folder == tmp_path / "default" / "soft-hard" / "seed0"


def test_keys_for_all_reach_those_that_have_them(tmp_path: Path) -> None:
    layer = {
        "relaxation": "ste",
        "trials": 2,
        "set": ["dropout=dropout(0.3)"],
    }
    comparison = plan(layer, strategies=["darts", "evolution"])
    cells = {c.label: c for c in comparison.cells(tmp_path)}
    assert cells["darts"].values["relaxation"] == "ste" and "trials" not in cells["darts"].values
    assert cells["evolution"].values["trials"] == 2
    assert cells["darts"].values["set"] == layer["set"]
    assert cells["one tanh"].values["set"] == []  # a space of its own
    assert comparison.shared() == {"objective": "toy", **layer}


def test_cells_of_another_configuration_are_refused(tmp_path: Path) -> None:
    cells = plan(strategies=["random"]).cells(tmp_path)
    begin(cells[3])
    refuse_other_cells(cells)
    begin(cells[5], clip=3.0)
    with pytest.raises(Exception, match="'clip' was 3"):
        refuse_other_cells(cells)


def test_side_by_side_runs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("PREFIXNAS_SHARE_OF_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert share_of_threads(1) == {}
    assert share_of_threads(3)["OMP_NUM_THREADS"] == "2"
    assert share_of_threads(20)["OMP_NUM_THREADS"] == "1"
    for name, value in share_of_threads(2).items():  # within a share of 4: its processes
        monkeypatch.setenv(name, value)
    assert share_of_threads(1) == {}
    assert share_of_threads(2)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert share_of_threads(3) == {}


# mistakes

COMPARE = "compare --objective toy --out out "
CASES: list[tuple[str, list[str]]] = [
    ("compare --objective toy", ["--out"]),
    (COMPARE + "--strategies dats", ["'dats'", "'darts'"]),
    (COMPARE + "--strategies darts:relaxtion=ste", ["darts:relaxtion=ste", "'relaxation'"]),
    (COMPARE + "--strategies darts:relaxation=gumble", ["'gumble'", "'gumbel'"]),
    (COMPARE + "--strategies darts:relaxation", ["'relaxation'", "KEY=VALUE"]),
    (COMPARE + "--strategies random:trials=0", ["'trials'", "at least 1"]),
    (COMPARE + "--strategies random:trials=x", ["'trials'", "whole number", "'x'"]),
    (COMPARE + "--strategies darts:seed=3", ["'seed'", "'seeds'"]),
    (COMPARE + "--strategies darts,darts", ["'strategies'", "twice"]),
    (COMPARE + "--strategies", ["'strategies'", "at least one"]),
    (COMPARE + "--seeds", ["'seeds'", "at least one"]),
    (COMPARE + "--seeds 0,x", ["--seeds", "'x'"]),
    (COMPARE + "--seeds 0,0", ["'seeds'", "twice"]),
    (COMPARE + "--seeds 1000", ["'seeds'", "below 1000"]),
    (COMPARE + "--seeds=-1", ["'seeds'", "at least 0"]),
    (COMPARE + "--budget 0", ["'budget'", "at least 1"]),
    (COMPARE + "--budget 2 --strategies darts,evolution", ["evolution", "'trials'"]),
    (COMPARE + "--jobs 0", ["'jobs'", "at least 1"]),
    (COMPARE + "--space defualt", ["'defualt'", "'default'"]),
    (COMPARE + "--space mlp --strategies darts:relaxation=nothing", ["'nothing'"]),
    (COMPARE + "--space nowhere.yaml", ["nowhere.yaml", "no such file"]),
    (COMPARE + "--references prembedd", ["'prembedd'", "'preembedd'"]),
    (COMPARE + "--set activatoin=tanh", ["'activatoin'"]),
    (COMPARE + "--relaxatoin ste", ["'--relaxatoin'", "'--relaxation'"]),
    (COMPARE + "--steps 5", ["'--steps'"]),
    (COMPARE + "--objective tyo", ["'tyo'", "'toy'"]),
    (COMPARE + "--plugin nowhere.py", ["nowhere.py"]),
    (COMPARE + "--config mistake.yaml", ["mistake.yaml", "'lerning'"]),
    (COMPARE + "--config nowhere.yaml", ["nowhere.yaml"]),
    (COMPARE + "--resume", ["no comparison to resume"]),
    (COMPARE + "--tables", ["no comparison to resume"]),
    ("compare --objective toy --out full", ["full", "not empty"]),
    ("compare --objective toy --out mistake.yaml", ["mistake.yaml", "is a file"]),
    ("compare --objective toy --out held", ["held", "--resume"]),
]


@pytest.mark.parametrize(("command", "words"), CASES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_one_line_before_anything_starts(
    command: str,
    words: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mistake.yaml").write_text("lerning: 3\n")
    for folder, name in (("full", "letter.txt"), ("held", "comparison.yaml")):
        Path(folder).mkdir()
        Path(folder, name).write_text("seeds: [0]\n")
    monkeypatch.setattr("prefixnas.compare.runner.Child", None)  # nothing may be started
    before = sorted(tmp_path.rglob("*"))
    assert main(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
    assert sorted(tmp_path.rglob("*")) == before


# numbers


def test_the_interval_of_a_paired_difference() -> None:
    ours, theirs = {0: 0.8, 1: 0.9, 2: 0.7, 9: 0.1}, {0: 0.7, 1: 0.6, 2: 0.65, 8: 0.9}
    found = paired(ours, theirs)
    assert found is not None and found.count == 3
    half = 4.302653 * 0.0175**0.5 / 3**0.5  # the table's t for 2 degrees of freedom, 97.5 %
    assert (found.low, found.high) == pytest.approx((0.15 - half, 0.15 + half))
    assert found.mean == pytest.approx(0.15)
    assert found.relative == pytest.approx(0.15 / 0.65)
    assert found.verdict == "within the spread"


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ({0: 0.5, 1: 0.51, 2: 0.49}, "above"),
        ({0: 0.1, 1: 0.11, 2: 0.09}, "below"),
        ({0: 0.3, 1: 0.51, 2: 0.19}, "within the spread"),
        ({0: 0.9}, "too few seeds"),
        ({0: 0.9, 1: 0.9}, "too few seeds"),
    ],
)
def test_verdicts(ours: dict[int, float], verdict: str) -> None:
    found = paired(ours, {0: 0.3, 1: 0.3, 2: 0.3})
    assert found is not None and found.verdict == verdict


def test_scores_below_zero_gain_when_they_rise() -> None:
    found = paired({0: -0.5}, {0: -1.0})
    assert found is not None and found.relative == pytest.approx(0.5)
    assert paired({0: 1.0}, {1: 1.0}) is None
    zero = paired({0: 1.0}, {0: 0.0})
    assert zero is not None and zero.relative is None


def results() -> list[CellResult]:
    """Three seeds of everything; darts is 0.1 above the mean of two draws, give or take 0.01."""
    found = []
    for seed, base in enumerate((0.50, 0.60, 0.70)):
        for number, shift in enumerate((-0.05, 0.05)):
            found.append(result("draw", AVERAGE_RANDOM, seed, base + shift, number=number))
        found.append(result("search", "darts", seed, base + 0.1 + 0.01 * (seed - 1)))
        found.append(result("search", "random", seed, base + 0.01))
        found.append(result("hand-made", "one tanh", seed, base + 0.2, REFERENCES))
        found.append(result("hand-made", "worse", seed, base - 0.2, REFERENCES))
        found.append(result("alone", "linear alone", seed, base, REFERENCES))
        found.append(result("retrained", "darts", seed, base + 0.3))
    return found


def result(
    kind: str, label: str, seed: int, score: float, space: str = "default", number: int = 0
) -> CellResult:
    return CellResult(
        space, label, kind, seed, seed + 1000 * number, "finished", score=score,
        argmax_child=score - 0.1, search_steps=5, steps=10, search_seconds=1.0, seconds=2.0 + seed,
        architecture=None if kind == "alone" else {"layer0/activation": "tanh"},
        task_scores={"first": score},
    )  # fmt: skip


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Summary]:
    monkeypatch.setattr("prefixnas.compare.summary._agreement", lambda runs: (0.5, 0.25))
    tables = summarise(plan(strategies=["darts", "random"]), results())
    assert list(tables) == ["default"]
    return {(row.kind, row.label): row for row in tables["default"]}


def test_a_summary_of_known_scores(rows: dict[tuple[str, str], Summary]) -> None:
    darts = rows["search", "darts"]
    assert darts.mean == pytest.approx(0.7)
    assert darts.spread == pytest.approx(0.11)  # 0.59, 0.70, 0.81
    assert darts.mean_of("seconds") == pytest.approx(3.0)
    over = darts.over[AVERAGE_RANDOM]
    assert over.mean == pytest.approx(0.1)
    assert over.relative == pytest.approx(0.1 / 0.6)
    half = 4.302652729911275 * 0.01 / math.sqrt(3)  # t of 2 degrees of freedom
    assert (over.low, over.high) == pytest.approx((0.1 - half, 0.1 + half))
    assert over.verdict == "above"
    assert darts.over[RANDOM_SEARCH].mean == pytest.approx(0.09)
    assert darts.over[HAND_MADE].mean == pytest.approx(-0.1)
    assert rows["draw", AVERAGE_RANDOM].mean == pytest.approx(0.6)
    assert len(rows["draw", AVERAGE_RANDOM].runs) == 6
    assert AVERAGE_RANDOM not in rows["draw", AVERAGE_RANDOM].over
    assert RANDOM_SEARCH not in rows["search", "random"].over
    assert HAND_MADE not in rows["hand-made", "one tanh"].over
    assert darts.over_retrained[HAND_MADE].mean == pytest.approx(0.1)
    assert darts.over_retrained[HAND_MADE].verdict == "above"


def test_tables_have_a_cell_for_each_heading(rows: dict[tuple[str, str], Summary]) -> None:
    text = markdown({"default": list(rows.values())})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    (darts,) = [line for line in lines if "darts" in line]
    assert "0.700 ± 0.110 (n=3)" in darts and "> +0.100 (+16.7 %)" in darts
    assert "darts: above the average random architecture: +0.100" in text


def test_the_page_shows_what_its_file_holds(
    rows: dict[tuple[str, str], Summary], tmp_path: Path
) -> None:
    tables = {"default": list(rows.values())}
    runs = [replace(run, state="failed") for row in rows.values() for run in row.runs]
    write_page(plan(space=["default"], strategies=["darts"]), runs, tables, tmp_path, None)
    html = (tmp_path / "report.html").read_text()
    assert "<script" not in html and "http" not in html
    for text in ("Space default", "darts", "Differences with their", "0.700 ± 0.110"):
        assert text in html
    data = json.loads((tmp_path / "summary.json").read_text())
    (darts,) = [row for row in data["spaces"]["default"] if row["label"] == "darts"]
    over = rows["search", "darts"].over[AVERAGE_RANDOM]
    assert darts["score"] == pytest.approx(0.7)
    assert darts["over_average_random_low"] == pytest.approx(over.low)
    assert sorted(darts["scores"]) == ["0", "1", "2"]
    assert len(data["runs"]) == len(runs)


def test_scores_on_a_test_split_have_a_column_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They stand beside the others, and no difference is taken of them."""
    monkeypatch.setattr("prefixnas.compare.summary._agreement", lambda runs: (0.5, 0.25))
    found = results()
    plain = summarise(plan(strategies=["darts"]), found)
    scored = [
        replace(run, test=run.score - 0.2, task_tests={"first": run.score - 0.2})
        if run.score is not None and run.label == "darts" and run.kind == "search"
        else run
        for run in found
    ]
    tested = summarise(plan(strategies=["darts"]), scored)
    assert "on test" not in markdown(plain) and "task_tests" not in plain["default"][0].data()
    (line,) = [line for line in markdown(tested).splitlines() if line.startswith("| darts")]
    assert line.split(" | ")[1:3] == ["0.700 ± 0.110 (n=3)", "0.500 ± 0.110 (n=3)"]
    assert markdown(tested).count("nothing was chosen by it") == 1
    for one, other in zip(plain["default"], tested["default"], strict=True):
        assert one.over == other.over and one.scores == other.scores
    (darts,) = [row.data() for row in tested["default"] if row.label == "darts"]
    assert (darts["test"], darts["test_sd"]) == pytest.approx((0.5, 0.11))
    assert darts["task_tests"] == {
        "first": {"score": pytest.approx(0.5), "score_sd": pytest.approx(0.11)}
    }


def test_scores_by_task_are_means_over_the_runs() -> None:
    made = CellResult("s", "darts", "search", 0, 0, "finished", score=0.5, task_scores={"a": 0.4})
    other = replace(made, seed=1, score=0.7, task_scores={"a": 0.6, "b": 1.0})
    row = Summary("s", "darts", "search", {}, [made, other], None, 0, {}, None, None, {}, {})
    lines = task_table({row.label: row.task_scores}).markdown().replace("**", "").splitlines()
    assert lines[2:] == ["| a | 0.500 ± 0.141 |", "| b | 1.000 |"]
    assert row.data()["task_scores"] == {
        "a": {"score": pytest.approx(0.5), "score_sd": pytest.approx(0.1414, abs=1e-4)},
        "b": {"score": 1.0, "score_sd": None},
    }


def test_a_comparison_without_a_finished_run_has_tables(tmp_path: Path) -> None:
    comparison = plan(space=["default", "mlp"], strategies=["darts"])
    cells = comparison.cells(tmp_path)
    found, _ = write_comparison(comparison, cells, tmp_path)
    assert {item.state for item in found} == {"not run", "refused"}
    with (tmp_path / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(cells)
    assert "darts: refused: space 'mlp' leaves no choice" in (tmp_path / "summary.md").read_text()
    assert not (tmp_path / "compute.png").exists()
    assert "refused: space" in (tmp_path / "report.html").read_text()


def test_a_cell_that_was_killed_before_its_page_is_run_again(tmp_path: Path) -> None:
    cell = plan(space=["default"], strategies=["darts"]).cells(tmp_path)[0]
    cell.folder.mkdir(parents=True)
    for name in ("config.yaml", "result.json"):
        (cell.folder / name).touch()
    assert cell.finished and unfinished([cell]) == [cell]
    (cell.folder / "report.html").touch()
    assert unfinished([cell]) == []
    beside(cell, ".json").write_text('{"error": "ended by SIGKILL"}')
    assert unfinished([cell]) == [cell]
