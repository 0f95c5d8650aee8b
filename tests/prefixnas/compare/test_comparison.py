"""Comparisons: what is planned, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefixnas.__main__ import main
from prefixnas.base.errors import UserError
from prefixnas.base.processes import share_of_threads
from prefixnas.compare.cells import Cell, refuse_other_cells
from prefixnas.compare.runner import beside, unfinished
from prefixnas.space.loading import load_space, space_to_yaml
from tests.prefixnas.compare.planned import plan

pytestmark = pytest.mark.usefixtures("rendered", "toy")


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


def test_cells_of_an_edited_space_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "name: mine\nsizes: {layers: 2}\nstack: {layers: layers, cell: [linear, tanh]}\n"
    file.write_text(text)
    cells = plan(strategies=["fixed"], space=[str(file)]).cells(tmp_path / "out")
    begun = next(cell for cell in cells if cell.label == "fixed")
    begin(begun)
    kept = load_space(str(file)).with_sizes({"layers": 5})  # as its objective had it
    (begun.folder / "space.yaml").write_text(space_to_yaml(kept))
    refuse_other_cells(cells)
    file.write_text(text.replace("tanh", "relu"))
    with pytest.raises(UserError, match=r"seed0: cannot go on: the space '.*mine.yaml' is not"):
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
    ("compare --resume --out out", ["no comparison to resume"]),
    ("compare --resume --jobs 2 --out out", ["no comparison to resume"]),
    (COMPARE + "--resume --relaxatoin ste", ["'--relaxatoin'"]),
    ("compare --objective toy --resume --out full", ["no comparison to resume"]),
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
