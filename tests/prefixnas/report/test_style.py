"""The one look of all figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefixnas.report.plots.style import (
    HUES,
    dash,
    hue,
    new_panels,
    save_figures,
    spreads_far,
    tidy,
)


@given(st.integers(1, 12), st.integers(1, 4), st.sampled_from(["", "x", "y"]))
def test_panels_stand_in_rows_and_the_lowest_are_labelled(
    count: int, across: int, share: str
) -> None:
    figure, panels = new_panels(count, across, 2.0, 0.5, share=share, under="step")
    rows = -(-count // across)
    np.testing.assert_allclose(figure.get_size_inches(), [9.0, 2.0 * rows + 0.5])
    assert figure.axes == panels and len(panels) == count
    for index, axes in enumerate(panels):
        lowest = index + across >= count
        assert axes.get_xlabel() == ("step" if lowest else "")
        assert axes.xaxis.get_tick_params()["labelbottom"] == lowest
    for axes in panels[1:]:
        assert axes.get_shared_x_axes().joined(axes, panels[0]) == (share == "x")
        assert axes.get_shared_y_axes().joined(axes, panels[0]) == (share == "y")


def test_a_tidy_panel_keeps_its_label_and_shows_a_title_as_it_is() -> None:
    _, (axes,) = new_panels(1, 1, 2.0, under="step")
    tidy(axes, "$x$ and $y$", y="score")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "score")
    assert axes.get_title(loc="left") == r"\$x\$ and \$y\$"
    assert not axes.spines["top"].get_visible() and axes.spines["left"].get_visible()
    tidy(axes, x="trial")
    assert axes.get_xlabel() == "trial"


def test_no_two_of_many_things_look_the_same() -> None:
    assert len({(hue(index), dash(index)) for index in range(4 * len(HUES))}) == 4 * len(HUES)


@pytest.mark.parametrize(
    ("values", "far"), [([1, 21], True), ([1, 20], False), ([0, 99], False), ([-1, 99], False)]
)
def test_a_logarithm_is_for_positive_values_that_spread_far(values: list[int], far: bool) -> None:
    assert spreads_far(np.array(values)) is far


def test_a_figure_that_is_none_removes_the_one_of_its_name(tmp_path: Path) -> None:
    figure, _ = new_panels(1, 1, 1.0)
    assert save_figures(tmp_path, {"a": figure, "b": None}) == {"a": tmp_path / "a.png"}
    assert save_figures(tmp_path, {"a": None, "b": figure}) == {"b": tmp_path / "b.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"b.png"}
