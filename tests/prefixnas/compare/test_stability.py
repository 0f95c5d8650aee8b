"""Several searches beside each other: their table, their agreement, their plots."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import prefixnas.__main__
from prefixnas.base.errors import UserError
from prefixnas.base.estimates import mean_and_spread
from prefixnas.compare import stability
from prefixnas.compare.agreement import Agreement
from prefixnas.compare.stability import grouped, read_searches, tables, write_tables
from prefixnas.compare.stability_plots import write_stability_plots
from prefixnas.report.plots.alphas import (
    Norms,
    discretisation_figure,
    entropy_figure,
    gradient_figure,
    trajectory_figure,
)
from prefixnas.run import events
from prefixnas.run.events import Alpha, Evaluation, Event, Start, Step
from prefixnas.run.record import read_record
from tests.workbench import digest, write_lines

pytestmark = pytest.mark.usefixtures("rendered")

OPTIONS = {"layer0/act": ["relu", "tanh"], "layer1/act": ["relu", "tanh", "gelu"]}


def scored(name: str, score: float) -> Evaluation:
    return Evaluation(name, "validation", {"task": {"accuracy": score}}, {"task": score}, score)


def write_run(
    folder: Path,
    norms: Sequence[float] = (0.1, 0.2, 0.3),
    chosen: Sequence[str] = ("relu", "gelu"),
    finished: bool = True,
    alphas: bool = True,
    scores: Sequence[float] = (0.75, 0.5, 0.625),
    **config: Any,
) -> Path:
    folder.mkdir(parents=True)
    names = list(OPTIONS)
    equal = {name: {o: 1 / len(options) for o in options} for name, options in OPTIONS.items()}
    raw = {name: dict.fromkeys(options, 0.5) for name, options in OPTIONS.items()}
    seed = config.get("seed", 0)
    found: list[Event] = [Start("small", "darts", "toy", seed, {"search": 4, "train": 0})]
    for step, norm in enumerate([None, *norms]):
        found.append(Step.of("search", step, 4, {"task": 1.0}, 1e-3, None, None, norm))
        if alphas:
            variance = 0.25 * step
            found.append(Alpha("search", step, equal, raw, gradient_norm=norm, variance=variance))
    for name, score in zip(("mixture", "argmax child", "trained child"), scores, strict=True):
        found.append(scored(name, score))
    found.append(events.Architecture(dict(zip(names, chosen, strict=True))))
    write_lines(folder / "metrics.jsonl", [event.to_json() for event in found])
    (folder / "config.yaml").write_text(yaml.safe_dump({"relaxation": "softmax", **config}))
    if finished:
        (folder / "result.json").write_text(json.dumps({"columns": {}}))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        write_run(tmp_path / "a", seed=0),
        write_run(tmp_path / "b", (0.2, 0.4, 0.6), ("relu", "tanh"), seed=1, steps=7),
        write_run(tmp_path / "c", chosen=("tanh", "tanh"), scores=(0.5, 0.75, 1.0), seed=2),
        write_run(tmp_path / "d", relaxation="ste", seed=0),
    ]


def test_numbers_per_run_and_per_group(runs: list[Path], tmp_path: Path) -> None:
    groups = grouped(read_searches(runs, "relaxation"))
    assert [len(members) for members in groups.values()] == [3, 1]
    numbers = groups["softmax"][1].numbers
    np.testing.assert_allclose(numbers["gradient_norm"], 0.4)
    np.testing.assert_allclose(numbers["gradient_norm_sd"], statistics.stdev([0.2, 0.4, 0.6]))
    np.testing.assert_allclose(numbers["variance"], 0.5, err_msg="without the warm-up's record")
    assert [s.numbers["gap"] for s in groups["softmax"]] == [0.25, 0.25, -0.25]
    write_tables(tmp_path, groups, "relaxation")
    rows = list(csv.DictReader((tmp_path / "stability.csv").open()))
    assert [(row["relaxation"], row["runs"]) for row in rows] == [("softmax", "3"), ("ste", "1")]
    spread = statistics.stdev([0.2, 0.4, 0.2])
    np.testing.assert_allclose(float(rows[0]["gradient_norm_sd"]), spread)
    np.testing.assert_allclose(float(rows[0]["gap_mean"]), 1 / 12)
    assert rows[1]["gap_sd"] == "", "one run has no spread"
    assert len(list(csv.DictReader((tmp_path / "runs.csv").open()))) == 4


def test_a_ste_run_has_the_gap_of_its_probabilities_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=(0.5, 0.5, 0.5))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(scored("softmax mixture", 0.75).to_json()) + "\n")
    (search,) = read_searches([run], "relaxation")
    assert (search.numbers["gap"], search.numbers["soft_gap"]) == (0.0, 0.25)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_mean_and_spread(values: list[float]) -> None:
    mean, spread = mean_and_spread([None, *values])
    np.testing.assert_allclose(mean, statistics.fmean(values), atol=1e-9)
    np.testing.assert_allclose(spread, statistics.stdev(values), atol=1e-9)


def test_what_is_printed_and_drawn(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert prefixnas.__main__.main(["stability", *map(str, runs), "--out", str(out)]) == 0
    text, said = capsys.readouterr()
    assert "softmax (3)" in text and "ste (1)" in text
    assert "0.2667 ± 0.1155" in text
    assert "warning: the runs differ in other keys too: steps" in said
    assert {path.name for path in out.iterdir()} == {
        *("stability.csv", "runs.csv", "agreement.csv"),
        *("stability.png", "gradients.png", "agreement.png"),
    }


def test_runs_of_one_seed_have_no_p(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [write_run(tmp_path / name, seed=0, steps=n) for n, name in enumerate("ab")]
    assert prefixnas.__main__.main(["stability", "--json", *map(str, names)]) == 0
    out, said = capsys.readouterr()
    *_, overall = json.loads(out)["agreement"]
    assert overall["share"] == 1 and overall["p_value"] is None
    assert "no p for softmax: runs that share a seed" in said


def test_searches_that_agree_on_all_have_a_small_p_but_not_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [write_run(tmp_path / str(seed), seed=seed) for seed in range(9)]
    assert prefixnas.__main__.main(["stability", *map(str, names)]) == 0
    out, said = capsys.readouterr()
    assert "< 0.001" in out and "share a seed" not in said


def test_box_plots_stand_side_by_side_and_contours_per_group() -> None:
    values = np.random.default_rng(0).lognormal(size=40)
    norms = Norms(np.arange(40.0), values)
    figure = gradient_figure({"softmax": [norms], "ste": [norms, norms]})
    assert figure is not None
    first, second, boxes = figure.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["softmax", "ste"]
    assert [label.get_text() for label in boxes.get_xticklabels()] == ["softmax", "ste"]
    low, high = np.percentile(values, [25, 75])
    box = boxes.patches[0]
    np.testing.assert_allclose([box.get_y(), box.get_height()], [low, high - low])  # type: ignore[attr-defined]


def test_norms_without_any_spread_are_drawn_without_contours() -> None:
    still = Norms(np.arange(8.0), np.full(8, 0.5))
    assert gradient_figure({"still": [still]}) is not None
    assert gradient_figure({"none": [Norms(np.empty(0), np.empty(0))]}) is None


def test_alpha_entropy_and_scores_are_drawn_as_recorded(tmp_path: Path) -> None:
    record = read_record(write_run(tmp_path / "run"))
    alphas, entropies, scores = (
        draw(record) for draw in (trajectory_figure, entropy_figure, discretisation_figure)
    )
    assert alphas is not None and entropies is not None and scores is not None
    assert [len(axes.lines) for axes in alphas.axes] == [2, 3]
    np.testing.assert_allclose(np.asarray(alphas.axes[0].lines[0].get_ydata()), 0.5)
    lines = {str(line.get_label()): line for line in entropies.axes[0].lines}
    np.testing.assert_allclose(np.asarray(lines["layer1/act"].get_ydata()), np.log(3))
    np.testing.assert_allclose(np.asarray(scores.axes[0].lines[-1].get_ydata()), [0.75, 0.5, 0.625])


@pytest.mark.parametrize("command", ["stability", "diagnose"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alphas": False}, ["without alphas", "'darts'"]),
        ({"finished": False}, ["not finished", "--resume"]),
    ],
)
def test_runs_that_say_nothing_of_alphas_are_refused(
    command: str, options: dict[str, Any], said: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = write_run(tmp_path / "run", **options)
    before = digest(run)
    assert prefixnas.__main__.main([command, str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(words in error for words in [str(run), *said])
    assert digest(run) == before


def test_a_run_named_twice_or_without_the_key_is_refused(runs: list[Path]) -> None:
    with pytest.raises(UserError, match="named twice"):
        read_searches([runs[0], runs[0].parent / "a" / "."], "relaxation")
    with pytest.raises(UserError, match=r"--by.*config.yaml: unknown key 'relaxatoin'.*relaxation"):
        read_searches(runs, "relaxatoin")


def test_a_folder_that_cannot_be_written_is_said(runs: list[Path], tmp_path: Path) -> None:
    groups = grouped(read_searches(runs, "relaxation"))
    assert tables(groups, "relaxation").renderables
    (tmp_path / "file").write_text("")
    for write in (write_stability_plots, lambda f, g: write_tables(f, g, "relaxation")):
        with pytest.raises(UserError, match="cannot be written"):
            write(tmp_path / "file", groups)


def test_groups_of_different_spaces_have_no_chance_in_common(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = grouped(read_searches(runs, "relaxation"))
    found = {3: Agreement("f", 3, 0.5, 1 / 4), 1: Agreement("f", 1, 0.5, 1 / 12)}
    monkeypatch.setattr(stability, "agreements", lambda members: [found[len(members)]])
    assert stability.agreement_table(groups).rows[0] == ["f", "0.50", "0.50", "-"]
