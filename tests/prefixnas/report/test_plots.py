"""Figures of a run hold what was recorded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.contour import ContourSet

from prefixnas.report.plots.alphas import Norms, gradient_figure
from prefixnas.report.plots.confusion import confusion_figure
from prefixnas.report.plots.heatmap import alpha_figure, cell_edges, short_labels
from prefixnas.report.plots.losses import loss_figure, smooth, task_loss_figure
from prefixnas.report.plots.run import (
    draw_record,
    score_figure,
    stability_figure,
)
from prefixnas.run.answers import Answered, Answers, keep_answers
from prefixnas.run.events import Event, Step
from prefixnas.run.record import read_record
from tests.prefixnas.recorded import SPACE, TASKS, in_memory, steps

pytestmark = pytest.mark.usefixtures("rendered")


def heights(line: Any) -> Any:
    return np.asarray(line.get_ydata(), dtype=np.float64)


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


def test_a_matrix_of_many_classes_is_drawn_without_numbers(finished: Path) -> None:
    labels = [f"class {n}" for n in range(40)]
    counts = np.eye(40, dtype=int).tolist()
    answers = Answers([Answered("a", "b", "c")], labels, counts)
    keep_answers(finished, "trained child", {"many": answers})
    figure = confusion_figure(read_record(finished))
    assert figure is not None and not figure.axes[0].texts
    assert len(figure.axes[0].get_yticklabels()) == 40


def test_plots_that_no_longer_apply_are_removed(finished: Path) -> None:
    assert "architecture" in draw_record(read_record(finished), SPACE)
    draw_record(read_record(finished), None)
    assert not (finished / "plots" / "architecture.png").exists()
