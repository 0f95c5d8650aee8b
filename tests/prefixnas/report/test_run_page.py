"""Reading a run back: events, plots, table, text and report."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.contour import ContourSet
from rich.console import Console

from prefixnas.base.errors import UserError
from prefixnas.report.plots.alphas import Norms, gradient_figure
from prefixnas.report.plots.confusion import confusion_figure
from prefixnas.report.plots.heatmap import alpha_figure, cell_edges, short_labels
from prefixnas.report.plots.losses import loss_figure, smooth, task_loss_figure
from prefixnas.report.plots.run import (
    draw_record,
    score_figure,
    stability_figure,
)
from prefixnas.report.run_page import write_report
from prefixnas.report.tables import (
    best_of,
    fitting_score_table,
    probability_table,
    score_rows,
    score_table,
    show,
)
from prefixnas.run import events as run_events
from prefixnas.run.answers import Answered, Answers, keep_answers
from prefixnas.run.event_file import read_events
from prefixnas.run.events import Alpha, End, Evaluation, Event, Prune, Start, Step, Warning
from prefixnas.run.record import Record, alpha_matrix, final_probabilities, loss_series, read_record
from prefixnas.run.result import check_columns
from prefixnas.space.architecture import Architecture, by_layer
from prefixnas.space.nodes import Choice, Seq, Stack
from prefixnas.space.space import SearchSpace

pytestmark = pytest.mark.usefixtures("rendered")

SPACE = SearchSpace("small", Stack(2, Seq("linear", Choice("act", ["relu", "tanh"]))))
CHOICES = {"layer0/act": "tanh", "layer1/act": "relu"}
COURSE = [[0.5, 0.5], [0.3, 0.7], [0.0, 1.0]]
TASKS = ("sst2", "a<b> & $x_1$")


def column(*scores: float) -> dict[str, Any]:
    return {
        "scores": {task: {"accuracy": s} for task, s in zip(TASKS, scores, strict=True)},
        "task_scores": dict(zip(TASKS, scores, strict=True)),
        "score": sum(scores) / len(scores),
    }


UNTOUCHED, MIXTURE = column(0.5, 0.25), column(0.75, 0.25)
ARGMAX, TRAINED = column(0.6, 0.2), column(0.75, 0.95)
COLUMNS = {
    "untouched": UNTOUCHED,
    "mixture": MIXTURE,
    "argmax child": ARGMAX,
    "trained child": TRAINED,
    "alone": None,
}


def steps(phase: str, total: int, began: float, *more: float) -> list[Event]:
    return [
        replace(
            Step.of(phase, n, total, {TASKS[0]: 1 - 0.1 * n, TASKS[1]: 2 - 0.1 * n}, 1e-3, *more),
            time=began + n + 1,
        )
        for n in range(total)
    ]


def evaluated(name: str, time: float, scores: dict[str, Any]) -> Event:
    return Evaluation(name, "validation", **scores, time=time)


def events(alphas: bool = True) -> list[Event]:
    found: list[Event] = [
        Start("small", "darts", "toy", 3, {"search": 3, "train": 4}),
        evaluated("untouched", 2.0, UNTOUCHED),
        *steps("search", 3, 2.0, *([1.2] if alphas else [])),
    ]
    if alphas:
        for n, (relu, tanh) in enumerate(COURSE):
            shares = {
                "layer0/act": {"relu": relu, "tanh": tanh},
                "layer1/act": {"relu": 0.6, "tanh": 0.4},
            }
            norm = None if n == 0 else 0.1 * n
            more = {"gradient_norm": norm, "variance": 0.01 * n}
            found.append(Alpha("search", 5 * n, shares, **more, time=5.0))
        found.append(Prune(2, [("layer0/act", "relu")], time=5.0))
        found.append(evaluated("mixture", 7.0, MIXTURE))
    return found


def ending() -> list[Event]:
    return [
        run_events.Architecture(CHOICES, time=7.0),
        evaluated("argmax child", 8.0, ARGMAX),
        *steps("train", 4, 8.0),
        evaluated("trained child", 13.0, TRAINED),
        Warning("<script>bad()</script> [red]", time=13.0),
        End(13.0, time=13.0),
    ]


def write(folder: Path, lines: list[Event], finished: bool = False, tail: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line.to_json()) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
    config = {"space": yaml.safe_load(SPACE_TEXT), "note": "</pre><b>bold</b>", "seed": 3}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    if finished:
        Architecture(CHOICES, "small").save(folder / "architecture.yaml")
        result = {
            "columns": COLUMNS,
            "architecture": CHOICES,
            "space": "small",
            "steps": {"search": 3, "total": 7},
            "seed": 3,
            "seconds": 13.0,
        }
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


SPACE_TEXT = """
name: small
stack:
  layers: 2
  cell: [linear, {choice: {key: act, options: [relu, tanh]}}]
"""


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    return write(tmp_path / "run", [*events(), *ending()], finished=True)


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    return write(tmp_path / "run", events())


def heights(line: Any) -> Any:
    return np.asarray(line.get_ydata(), dtype=np.float64)


def in_memory(lines: list[Event]) -> Record:
    return Record(Path("run"), lines, None, {}, None)


# Events


def test_events_come_back_as_written(finished: Path) -> None:
    assert read_events(finished) == [*events(), *ending()]


@pytest.mark.parametrize("tail", ['{"event": "st', '{"event": "warning", "message": "é'])
def test_a_last_line_that_was_cut_off_is_left_out_with_a_note(tmp_path: Path, tail: str) -> None:
    folder = write(tmp_path / "run", events())
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(tail.encode("utf-8")[:-1])
    *kept, note = read_events(folder)
    assert kept == events()
    number = len(events()) + 1
    assert isinstance(note, Warning)
    assert f"line {number}" in note.message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{half", "not valid JSON"),
        ("[1]", "key 'event'"),
        ('{"event": "warning"}', "lacks the key 'message'"),
        ('{"event": "stop", "step": "x", "reason": "settled"}', "'x' as 'step'"),
    ],
)
def test_other_damage_names_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    folder = write(tmp_path / "run", events())
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 3: ")) as caught:
        read_events(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_runs_and_damaged_results_are_user_errors(finished: Path) -> None:
    with pytest.raises(UserError, match="no such run folder"):
        read_events(finished / "nowhere")
    (finished / "empty").mkdir()
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        write_report(finished / "empty")
    (finished / "result.json").write_text('{"columns": {"untouched": {"score": 1}}}')
    with pytest.raises(
        UserError, match=r"result\.json: key 'columns\.untouched\.task_scores': is missing"
    ):
        read_record(finished)
    (finished / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result\.json: not valid JSON"):
        read_record(finished)


def test_time_is_added_up_over_the_processes_of_a_resumed_run() -> None:
    record = in_memory(
        [*steps("search", 3, 0.0), *steps("search", 2, 4.0), *steps("train", 2, 0.5)]
    )
    # The first process took 6 seconds, the second began its own clock and took 2.5.
    assert record.seconds() == pytest.approx(8.5)
    assert record.timing() == {"search": (5, 6.0), "train": (2, 2.5)}


def test_time_per_phase_of_a_whole_run(finished: Path) -> None:
    timing = read_record(finished).timing()
    assert timing["search"] == (3, 3.0)
    assert timing["train"] == (4, 4.0)
    assert timing["evaluation"] == (0, 2.0 + 2.0 + 1.0 + 1.0)
    assert sum(seconds for _, seconds in timing.values()) == pytest.approx(13.0)


# Series


def test_alpha_matrix_holds_options_by_steps(interrupted: Path) -> None:
    record = read_record(interrupted)
    at, options, matrix = alpha_matrix(record, "layer0/act")
    assert at == [0, 5, 10]
    assert options == ["relu", "tanh"]
    np.testing.assert_array_equal(matrix, [[0.5, 0.3, 0.0], [0.5, 0.7, 1.0]])


def test_heat_map_draws_that_matrix_and_hides_what_is_pruned(interrupted: Path) -> None:
    figure = alpha_figure(read_record(interrupted))
    assert figure is not None
    maps = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in maps] == ["layer0/act", "layer1/act"]
    values: Any = maps[0].collections[0].get_array()
    expected = [[0.5, 0.3, 0.0], [0.5, 0.7, 1.0]]
    np.testing.assert_array_equal(values.filled(0.0).reshape(2, 3), expected)
    mask = np.ma.getmaskarray(values).reshape(2, 3)
    np.testing.assert_array_equal(mask, [[False, False, True], [False] * 3])
    assert [text.get_text() for text in maps[0].get_yticklabels()] == ["relu", "tanh"]
    low, high = maps[0].get_ylim()
    assert low > high, "the first option is the upper row, as in its list"


def test_cell_edges_lie_halfway() -> None:
    np.testing.assert_allclose(cell_edges([0, 5, 10, 11]), [-2.5, 2.5, 7.5, 10.5, 11.5])
    np.testing.assert_allclose(cell_edges([7]), [6.5, 7.5])


def test_short_labels_leave_out_what_all_options_share() -> None:
    flat = ["linear+relu+dropout(0.1)+layer_norm", "linear+tanh+dropout(0.1)+layer_norm"]
    assert short_labels(flat) == ["relu", "tanh"]
    assert short_labels(["linear+relu", "linear+relu+relu"]) == ["relu", "relu+relu"]
    assert short_labels(["identity", "linear+relu"]) == ["identity", "linear+relu"]
    assert short_labels(["linear+relu"]) == ["linear+relu"]
    assert short_labels(["sum(relu, a+b)", "sum(relu, c+b)"]) == [
        "sum(relu, a+b)",
        "sum(relu, c+b)",
    ]


@given(
    st.lists(
        st.lists(st.sampled_from(["relu", "linear", "norm"]), min_size=1, max_size=5).map("+".join),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_short_labels_stay_different(options: list[str]) -> None:
    assert len(set(short_labels(options))) == len(options)


def test_losses_of_tasks_that_take_turns() -> None:
    lines: list[Event] = [
        Step.of("train", number, 4, {"odd" if number % 2 else "even": float(number)}, 1e-3)
        for number in range(4)
    ]
    series = loss_series(in_memory(lines), "train")
    assert {task: (at.tolist(), values.tolist()) for task, (at, values) in series.items()} == {
        "even": ([0, 2], [0.0, 2.0]),
        "odd": ([1, 3], [1.0, 3.0]),
    }


@given(st.floats(-10, 10), st.integers(1, 30), st.floats(0, 20))
def test_smoothing_keeps_a_constant(value: float, length: int, span: float) -> None:
    np.testing.assert_allclose(smooth(np.full(length, value), span), value, atol=1e-9)


def test_smoothing_by_hand() -> None:
    values = np.array([1.0, math.nan, 3.0])
    # Weights 1/2 and 1/4, and 1/2 of what was: (1/4 * 1 + 1/2 * 3) / (3/4).
    np.testing.assert_allclose(smooth(values, 1.0), [1.0, 1.0, (0.25 + 1.5) / 0.75])
    np.testing.assert_array_equal(smooth(np.array([4.0, 2.0]), 0.0), [4.0, 2.0])


def test_loss_panels_per_phase_and_one_for_numbered_phases() -> None:
    lines = [*steps("candidate 0", 3, 0.0), *steps("candidate 1", 3, 3.0), *steps("train", 3, 6.0)]
    figure = task_loss_figure(in_memory(lines))
    assert figure is not None
    first, second = figure.axes
    assert first.get_title(loc="left") == "candidate: 2 runs, mean of tasks"
    assert len(first.lines) == 2
    np.testing.assert_allclose(heights(first.lines[0])[0], 1.5)
    assert second.get_title(loc="left") == "train"
    assert len(second.lines) == 2 * len(TASKS) + 1, "raw and smoothed per task, and the mean"
    np.testing.assert_allclose(heights(second.lines[0]), [1.0, 0.9, 0.8])


def named(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_all_phases_are_compared_in_one_panel_on_a_logarithmic_axis() -> None:
    lines = [*steps("search", 4, 0.0), *steps("train", 3, 4.0), *steps("baseline", 7, 7.0)]
    figure = loss_figure(in_memory(lines))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    at = [np.asarray(line.get_xdata()).tolist() for line in axes.lines[1::2]]
    assert at == [[0, 1, 2, 3], [4, 5, 6], [0, 1, 2, 3, 4, 5, 6]], "training goes on from search"
    assert named(figure) == ["search", "train", "baseline"]
    trials = loss_figure(in_memory([*steps("trial 0", 3, 0.0), *steps("trial 1", 3, 3.0)]))
    assert named(trials) == ["trial (2)"]
    below: list[Event] = [Step.of("search", n, 2, {"a": n - 0.5}, 1e-3) for n in range(2)]
    linear = loss_figure(in_memory(below))
    assert linear is not None and linear.axes[0].get_yscale() == "linear"


def test_density_is_drawn_within_the_data() -> None:
    generator = np.random.default_rng(0)
    norms = Norms(np.arange(60.0), generator.uniform(1.0, 2.0, 60))
    figure = gradient_figure({"this run": [norms]})
    assert figure is not None
    drawn = [c for axes in figure.axes for c in axes.collections if isinstance(c, ContourSet)]
    assert len(drawn) == 2
    corners = np.concatenate([path.vertices for c in drawn for path in c.get_paths() if len(path)])
    assert corners[:, 0].min() >= 0 and corners[:, 0].max() <= 59
    assert corners[:, 1].min() >= norms.values.min() - 1e-9
    assert corners[:, 1].max() <= norms.values.max() + 1e-9


def test_stability_panels_hold_the_recorded_values(interrupted: Path) -> None:
    figure = stability_figure(read_record(interrupted))
    assert figure is not None
    entropy, gradient, variance = figure.axes
    np.testing.assert_allclose(heights(entropy.lines[0]), [1.2] * 3)
    np.testing.assert_allclose(heights(entropy.lines[1])[0], 2 * math.log(2))
    np.testing.assert_allclose(np.asarray(gradient.lines[0].get_xydata()), [[5, 0.1], [10, 0.2]])
    np.testing.assert_allclose(heights(variance.lines[0]), [0.0, 0.01, 0.02])


def test_bars_are_the_scores(finished: Path) -> None:
    figure = score_figure(read_record(finished))
    assert figure is not None
    groups = {group.get_label(): group for group in figure.axes[0].containers}
    assert list(groups) == ["untouched", "mixture", "argmax child", "trained child"]
    widths = [bar.get_width() for bar in groups["trained child"]]
    assert widths == pytest.approx([0.75, 0.95, 0.85])


# Table and text


def text_of(what: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_table_has_a_row_per_task_and_the_average(finished: Path) -> None:
    grid = score_table(read_record(finished).columns())
    assert grid.head == ["task", *COLUMNS]
    assert [row[0] for row in grid.rows] == [*TASKS, "average"]
    assert grid.breaks == [2]
    columns: Any = list(zip(*grid.rows, strict=True))[1:]
    assert [span.text for span in columns[3]] == ["0.750", "0.950", "0.850"]
    assert [span.text for span in columns[4]] == ["-", "-", "-"]
    assert [[span.style == "bold" for span in column] for column in columns] == [
        [False, False, False],
        [True, False, False],
        [False, False, False],
        [True, True, True],
        [False, False, False],
    ]


def test_table_of_a_result_and_of_a_run_that_goes_on(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert check_columns(result, "result") == read_record(finished).columns()
    (finished / "result.json").unlink()
    labels = score_table(read_record(finished).columns()).head
    assert labels == ["task", "untouched", "mixture", "argmax child", "trained child"]
    with pytest.raises(UserError, match="columns"):
        check_columns({}, "result")


def test_best_scores_share_a_tie_and_a_missing_task_is_no_score() -> None:
    assert best_of([0.1, 0.50004, None, 0.5]) == {1, 3}
    assert best_of([None, None]) == set()
    one: Any = {"scores": {}, "task_scores": {"a": 1.0}, "score": 1.0}
    two: Any = {"scores": {}, "task_scores": {"b": 0.5}, "score": 0.5}
    assert score_rows({"x": one, "y": None, "z": two}) == [
        ("a", [1.0, None, None]),
        ("b", [None, None, 0.5]),
        ("average", [1.0, None, 0.5]),
    ]


def test_show_tells_summary_architecture_ranking_and_scores(finished: Path) -> None:
    text = text_of(show(finished))
    assert re.search(r"state +finished", text)
    assert re.search(r"discretisation gap +\+0\.100", text)
    assert re.search(r"layer0 +tanh", text)
    assert re.search(r"layer0/act +tanh 1\.000 +relu pruned", text)
    assert re.search(r"layer1/act +relu 0\.600 +tanh 0\.400", text)
    assert "trained child" in text
    assert "warning: <script>bad()</script> [red]" in text


def test_show_of_runs_that_have_less(tmp_path: Path) -> None:
    text = text_of(show(write(tmp_path / "run", events(alphas=False))))
    assert re.search(r"state +not finished", text)
    assert "Architecture" not in text
    assert "Probabilities" not in text
    assert re.search(r"sst2 +0\.500", text)


def test_choices_by_layer() -> None:
    assert by_layer({"a": "x", "layer0/b": "y", "layer0/b=y/c": "z", "o=p+q/r": "s"}) == {
        "": {"a": "x", "o=p+q/r": "s"},
        "layer0": {"b": "y", "b=y/c": "z"},
    }


def test_final_probabilities_rank_the_likeliest_first(interrupted: Path) -> None:
    ranking = final_probabilities(read_record(interrupted))
    assert list(ranking["layer0/act"].items()) == [("tanh", 1.0), ("relu", 0.0)]
    assert list(ranking["layer1/act"]) == ["relu", "tanh"]


def test_probabilities_stand_beside_what_they_rest_on(interrupted: Path) -> None:
    before = probability_table(read_record(interrupted))
    assert [*before.head] == ["decision", "candidates"]
    found = run_events.Evidence(48, 0.01, {"layer0/act": 0.01, "layer1/act": 0.73})
    with (interrupted / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(found.to_json()) + "\n")
    after = probability_table(read_record(interrupted))
    assert [*after.head] == ["decision", "candidates", "p by chance"]
    assert [(row[0], row[2]) for row in after.rows] == [
        ("layer0/act", "0.010"),
        ("layer1/act", "0.730"),
    ]
    assert "p by chance" in page_of(interrupted)[0].text


# Plots and report


class Page(HTMLParser):
    """Collects tags, attributes and text; void tags are those the report uses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)


def page_of(run_dir: Path) -> tuple[Page, str]:
    path = write_report(run_dir)
    assert path == run_dir / "report.html"
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open, "every tag is closed"
    return page, re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)


def test_report_holds_everything_and_nothing_from_outside(finished: Path) -> None:
    page, html = page_of(finished)
    for word in [*TASKS, *COLUMNS, "0.950", "layer1", "darts", "note: </pre><b>bold</b>"]:
        assert word in page.text
    assert "<script>bad()</script> [red]" in page.text
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert len(page.sources) == 9
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.sources)
    assert page.tags.count("b") >= 5, "the best of each row, and chosen candidates"
    assert "not drawn" not in page.text


def test_report_of_an_interrupted_run_leaves_out_what_is_not_there(interrupted: Path) -> None:
    with (interrupted / "metrics.jsonl").open("a") as file:
        file.write('{"event": "al')
    page, _ = page_of(interrupted)
    assert "not finished" in page.text
    assert "cut off" in page.text
    assert "Architecture" not in page.text
    assert {p.name for p in (interrupted / "plots").iterdir()} == {
        "alphas.png",
        "entropy.png",
        "gradients.png",
        "losses.png",
        "losses_by_task.png",
        "scores.png",
        "stability.png",
    }


def test_report_of_a_run_without_alphas(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", [*events(alphas=False), *ending()], finished=True)
    page, _ = page_of(folder)
    assert "Probabilities" not in page.text
    assert set(draw_record(read_record(folder), SPACE)) == {
        "scores",
        "losses",
        "losses_by_task",
        "architecture",
    }


def test_report_of_a_run_that_has_only_begun(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("")
    page, _ = page_of(folder)
    assert "not finished" in page.text
    assert page.sources == []


def test_the_top_says_what_was_trained_on_what_when_and_how_large(finished: Path) -> None:
    about = {"model": "<b>base</b>", "method": "LoRA"}
    began = Start("s", "darts", "toy", 3, {}, began="2026-03-01T14:05:09+02:00", about=about)
    text = (finished / "metrics.jsonl").read_text().splitlines()
    (finished / "metrics.jsonl").write_text("\n".join([json.dumps(began.to_json()), *text[1:]]))
    result = json.loads((finished / "result.json").read_text())
    gap = {"of": "mixture", "over": "argmax child", "standard_error": 0.01, "score": 0.1}
    result |= {"trained_parameters": 1500, "parameters": 6000}
    result |= {"differences": [{**gap, "task_scores": {}}]}
    (finished / "result.json").write_text(json.dumps(result))
    words = page_of(finished)[0].words
    for label, fact in {
        "date": "2026-03-01 14:05",
        "model": "<b>base</b>",
        "tasks": ", ".join(TASKS),
        "weights": "1,500 trained, of 6,000 (25.0%)",
        "discretisation gap": "+0.100 ± 0.020",
    }.items():
        assert words[words.index(label) + 1] == fact


def test_the_page_shows_answers_and_what_was_taken_for_what(finished: Path) -> None:
    for column, said in (("trained child", "no"), ("untouched", "<i>maybe</i>")):
        example = Answered("Is <b>it</b> so?", "no", said)
        answers = Answers([example], ["no", "yes $x$"], [[5, 1], [0, 7]])
        keep_answers(finished, column, {TASKS[1]: answers})
    page, _ = page_of(finished)
    at = page.words.index("prompt")
    assert page.words[at + 1 : at + 4] == ["expected", "untouched", "trained child"]
    assert page.words[at + 4 : at + 8] == ["Is <b>it</b> so?", "no", "<i>maybe</i>", "no"]
    assert len(page.sources) == 10
    figure = confusion_figure(read_record(finished))
    assert figure is not None
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["5", "1", "0", "7"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["no", r"yes \$x\$"]


def test_a_matrix_of_many_classes_is_drawn_without_numbers(finished: Path) -> None:
    labels = [f"class {n}" for n in range(40)]
    counts = np.eye(40, dtype=int).tolist()
    answers = Answers([Answered("a", "b", "c")], labels, counts)
    keep_answers(finished, "trained child", {"many": answers})
    figure = confusion_figure(read_record(finished))
    assert figure is not None and not figure.axes[0].texts
    assert len(figure.axes[0].get_yticklabels()) == 40


def test_a_space_that_is_gone_is_said_in_the_report(finished: Path) -> None:
    (finished / "config.yaml").write_text("space: gone\n")
    page, _ = page_of(finished)
    assert "not drawn: unknown space 'gone'" in page.text
    assert len(page.sources) == 8
    (finished / "config.yaml").write_text("space: default\n")
    page, _ = page_of(finished)
    assert "not drawn: architecture of space 'default'" in page.text


def test_a_space_kept_in_the_run_folder_goes_before_the_one_named(finished: Path) -> None:
    (finished / "config.yaml").write_text("space: gone\n")
    (finished / "space.yaml").write_text(SPACE_TEXT)
    page, _ = page_of(finished)
    assert "not drawn" not in page.text
    assert len(page.sources) == 9


def test_plots_that_no_longer_apply_are_removed(finished: Path) -> None:
    assert "architecture" in draw_record(read_record(finished), SPACE)
    draw_record(read_record(finished), None)
    assert not (finished / "plots" / "architecture.png").exists()


def test_an_unwritable_folder_is_a_user_error(finished: Path) -> None:
    (finished / "plots").write_text("in the way")
    with pytest.raises(UserError, match="plots: cannot be written"):
        write_report(finished)


def test_reading_and_plotting_do_not_import_torch_or_pyplot(interrupted: Path) -> None:
    code = (
        "import sys, pathlib, prefixnas.report.run_page, prefixnas.report.tables\n"
        f"prefixnas.report.run_page.write_report(pathlib.Path({str(interrupted)!r}))\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, prefixnas.report.tables; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_interval_reaches_two_standard_errors_to_either_side() -> None:
    sure: Any = {
        "task_scores": {"a": 0.5, "b": 0.7},
        "score": 0.6,
        "standard_errors": {"a": 0.01, "b": 0.02},
        "standard_error": 0.0112,
    }
    unsure: Any = {"task_scores": {"a": 0.5, "b": 0.7}, "score": 0.6}
    half: Any = {**unsure, "standard_errors": {"a": 0.01}, "standard_error": None}
    columns = {"x": sure, "y": unsure, "z": half, "w": None}

    def texts(wide: bool) -> list[list[str]]:
        rows = score_table(columns, wide).rows
        return [[cell if isinstance(cell, str) else cell.text for cell in row] for row in rows]  # type: ignore[union-attr]

    assert texts(wide=True) == [
        ["a", "0.500 ± 0.020", "0.500", "0.500 ± 0.020", "-"],
        ["b", "0.700 ± 0.039", "0.700", "0.700", "-"],
        ["average", "0.600 ± 0.022", "0.600", "0.600", "-"],
    ]
    narrow = texts(wide=False)
    assert narrow[:3] == [[cell.partition(" ±")[0] for cell in row] for row in texts(wide=True)]
    assert narrow[3:] == [["95 % interval ±", "0.022", "-", "-", "-"]]
    assert len(score_table({"y": unsure}).rows) == 3
    assert "± 0.022" in text_of(fitting_score_table(columns))
    assert "interval ±" in text_of(fitting_score_table(columns), 50)
