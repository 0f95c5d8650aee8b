"""NNI's web interface in a headless browser.

Playwright and Chromium are needed besides NNI's environment. PREFIXNAS_SCREENSHOTS names a folder
where the pages are kept as pictures: those of docs/nni.md.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import prefixnas.__main__
from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.nni.environment import VARIABLE
from prefixnas.experiments.nni.manager import Manager, living_manager
from prefixnas.experiments.nni.processes import processes_of
from prefixnas.experiments.nni.waiting import wait
from prefixnas.experiments.rows import COMPLETE, Row
from prefixnas.experiments.study import Study
from prefixnas.launch.config import read_config
from tests import ROOT
from tests.prefixnas.experiments.nni.test_engine import make_engine, running
from tests.prefixnas.experiments.nni.trials import KEYS
from tests.prefixnas.experiments.nni.waiting import free_port

pytestmark = [
    pytest.mark.nni,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        VARIABLE not in os.environ,
        reason=f"{VARIABLE} names no Python with NNI; docs/nni.md says how to set one up",
    ),
]
EXAMPLE = ROOT / "examples" / "nni.yaml"
AXES = ("architecture", "run directory", "steps")
COLUMNS = ("parameters (metric)", "run directory (metric)", "architecture (metric)")

CURVES = """() => {
  const chart = document.querySelector('[_echarts_instance_]');
  const key = Object.keys(chart).find((name) => name.startsWith('__reactFiber'));
  for (let fiber = chart[key]; fiber; fiber = fiber.return) {
    for (const each of [fiber, fiber.alternate]) {
      const option = each && each.memoizedProps && each.memoizedProps.option;
      if (option && option.series) {
        return option.series.map((line) => [line.parameter.trial, line.data]);
      }
    }
  }
}"""
"""What the chart on the page was given to draw: per line the trial and its values."""

COLOURS = """() => {
  const canvas = document.querySelector('[_echarts_instance_] canvas');
  const {width, height} = canvas;
  const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  const counts = {};
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b, a] = data.slice(i, i + 4);
    if (a < 250 || Math.max(r, g, b) - Math.min(r, g, b) < 40) continue;
    counts[[r, g, b]] = (counts[[r, g, b]] || 0) + 1;
  }
  return Object.values(counts).filter((count) => count > 100).length;
}"""
"""How many colours, neither grey nor faint, the chart is drawn in: one for each line."""


@pytest.fixture
def page() -> Iterator[Any]:
    """An empty page of a headless browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = shutil.which("chromium") or driver.chromium.executable_path
        if not Path(found).is_file():
            pytest.skip("no Chromium: `playwright install chromium`")
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1500, "height": 900})
        browser.close()


def command(*arguments: object) -> None:
    assert prefixnas.__main__.main(["experiment", *map(str, arguments)]) == 0


def test_the_browser_shows_the_trials_of_the_example(page: Any, tmp_path: Path) -> None:
    out = tmp_path / "study"
    command("start", EXAMPLE, "--out", out, "--port", free_port())
    try:
        manager = living_manager(out)
        assert manager is not None and wait(manager) == "DONE"
        look(page, manager, out)
    finally:
        command("stop", EXAMPLE, "--out", out)
    assert processes_of(out) == []


def look(page: Any, manager: Manager, out: Path) -> None:
    """Find what the study knows on the pages of the example's web interface."""
    study = Study.open(load_experiment(EXAMPLE), out)
    rows, best = study.rows(), study.best()
    assert [row.state for row in rows] == [COMPLETE] * 8 and best is not None

    page.goto(manager.rest.url + "oview")
    page.get_by_text("SUCCEEDED").nth(7).wait_for()
    shown = page.inner_text("body")
    assert f"{six_digits(best)}\nBest metric" in shown and "8/8" in shown
    keep(page, "overview")

    page.goto(manager.rest.url + "detail")
    page.locator(".ms-DetailsRow").nth(7).wait_for()
    shown = page.inner_text("body")
    assert all(f"{six_digits(row)} (FINAL)" in shown for row in rows)
    same_hyperparameters(page, rows, lambda folder: read_config(folder / "config.yaml"))

    page.get_by_text("Intermediate result", exact=True).click()
    page.wait_for_function(f"({COLOURS})() >= 8")
    drawn = dict(page.evaluate(CURVES))
    assert drawn == {row.number: pytest.approx(list(row.epochs.values())) for row in rows}
    assert all(len(curve) == 6 for curve in drawn.values())
    keep(page, "curves")

    page.get_by_text("Hyper-parameter", exact=True).click()
    page.get_by_text("Add/Remove axes").click()
    for axis in AXES:
        page.get_by_role("dialog").get_by_text(axis, exact=True).click()
    page.get_by_text("Save", exact=True).click()
    page.locator("svg text", has_text="lora_rank").wait_for()
    keep(page, "hyperparameters")

    page.get_by_text("Add/Remove columns").click()
    for column in COLUMNS:
        page.get_by_text(column).click()
    page.get_by_text("Save", exact=True).click()
    page.get_by_text(str(best.notes["run directory"])).first.wait_for()
    shown = page.inner_text("body")
    for row in rows:
        assert row.notes["run directory"] in shown
        assert str(row.notes["trained parameters"]) in shown
        for name, option in row.notes["architecture"].items():
            assert f"{name}={option}" in shown


def test_the_browser_shows_every_trial_its_own_hyperparameters(page: Any, tmp_path: Path) -> None:
    engine = make_engine(tmp_path, 32, concurrency=8)
    with running(engine, engine.start) as manager:
        assert wait(manager) == "DONE"
        rows = Study.open(engine.experiment, engine.folder).rows()
        page.goto(manager.rest.url + "detail")
        page.get_by_text("20 items per page").click()
        page.get_by_text("50 items per page").click()
        page.locator(".ms-DetailsRow").nth(31).wait_for()
        same_hyperparameters(
            page, rows, lambda folder: json.loads((folder / "config.json").read_text()), KEYS
        )


def same_hyperparameters(
    page: Any,
    rows: list[Row],
    used: Callable[[Path], Mapping[str, Any]],
    keys: tuple[str, ...] = KEYS,
) -> None:
    """Open every trial's row; compare what it shows with what its run directory says."""
    found = set()
    for place in range(len(rows)):
        line = page.locator(".ms-DetailsRow").nth(place)
        # An icon without its font has no size to be clicked at.
        line.locator("[data-automation-key=_expand] i").dispatch_event("click")
        opened = line.locator("xpath=..")
        opened.get_by_text("trial:").wait_for()
        text = opened.inner_text().partition("Log\n")[2]
        pairs = (part.partition(":") for part in text.splitlines() if ":" in part)
        shown = {key.strip(): json.loads(value) for key, _, value in pairs}
        number = shown.pop("trial")
        config = used(Path(rows[number].notes["run directory"]))
        assert shown == {key: config[key] for key in keys} == dict(rows[number].params)
        found.add(number)
        if place == 0:
            keep(page, "trial")
        line.locator("[data-automation-key=_expand] i").dispatch_event("click")
    assert found == set(range(len(rows)))


def six_digits(row: Row) -> str:
    """Return a score as the page writes it."""
    assert row.score is not None
    return f"{row.score:.6f}".rstrip("0").rstrip(".")


def keep(page: Any, name: str) -> None:
    """Keep a picture of the page, if somebody asked for it."""
    if folder := os.environ.get("PREFIXNAS_SCREENSHOTS"):
        page.wait_for_timeout(2000)  # charts move into their place
        page.screenshot(path=str(Path(folder) / f"nni-{name}.png"), full_page=True)
