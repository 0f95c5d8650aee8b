"""NNI's web interface in a headless browser, over the example on the embedded suite.

Playwright and Chromium are needed besides NNI's environment. PREFIXNAS_SCREENSHOTS names a folder
where the pages are kept as pictures: those of docs/nni.md.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import prefixnas.cli
from prefixnas.config import read_config
from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.nni.environment import VARIABLE
from prefixnas.experiments.nni.manager import Manager, living_manager
from prefixnas.experiments.nni.processes import processes_of
from prefixnas.experiments.study import Study
from tests.prefixnas.test_nni import free_port

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.nni,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        VARIABLE not in os.environ,
        reason=f"{VARIABLE} names no Python with NNI; docs/nni.md says how to set one up",
    ),
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here"),
]
EXAMPLE = Path(__file__).parents[2] / "examples" / "nni.yaml"
COLUMNS = ("parameters (metric)", "run directory (metric)", "architecture (metric)")


def command(*arguments: object) -> None:
    assert prefixnas.cli.main(["experiment", *map(str, arguments)]) == 0


def test_the_browser_shows_the_trials_of_the_example(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    out = tmp_path / "study"
    command("start", EXAMPLE, "--out", out, "--port", free_port())
    try:
        manager = living_manager(out)
        assert manager is not None
        while manager.status() in (
            "INITIALIZED",
            "RUNNING",
            "NO_MORE_TRIAL",
            "TUNER_NO_MORE_TRIAL",
        ):
            time.sleep(1)
        assert manager.status() == "DONE"
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            look(page, manager, out)
            browser.close()
    finally:
        command("stop", EXAMPLE, "--out", out)
    assert processes_of(out) == []


def look(page: Any, manager: Manager, out: Path) -> None:
    study = Study.open(load_experiment(EXAMPLE), out)
    rows = study.rows()
    assert [row.state for row in rows] == ["complete"] * 8
    best = study.best()
    assert best is not None

    page.goto(manager.rest.url + "oview")
    page.get_by_text("Best metric").wait_for()
    page.get_by_text("SUCCEEDED").nth(7).wait_for()
    assert f"{best.score:.6f}" in page.inner_text("body")
    assert "8/8" in page.inner_text("body")
    keep(page, "overview")

    page.goto(manager.rest.url + "detail")
    page.locator(".ms-DetailsRow").nth(7).wait_for()
    shown = page.inner_text("body")
    for row in rows:
        assert f"{row.score:.6g} (FINAL)" in shown
    for row in rows:  # NNI's numbers are the study's, as none was interrupted
        line = page.locator(".ms-DetailsRow").nth(row.number)
        line.locator("[data-icon-name=ChevronRight]").click()
        text = page.inner_text("body").replace(" ", "")
        used = read_config(Path(row.notes["run directory"]) / "config.yaml")
        assert {key: used[key] for key in row.params} == dict(row.params)
        for key, value in row.params.items():
            assert f"{key}:{value}" in text
        if row.number > 0:
            line.locator("[data-icon-name=ChevronDown]").click()
    keep(page, "trials")

    page.get_by_text("Intermediate result", exact=True).click()
    page.wait_for_timeout(2000)
    assert colours(page) > 3  # one line a trial, besides axes and text
    keep(page, "curves")
    page.get_by_text("Hyper-parameter", exact=True).click()
    page.wait_for_timeout(2000)
    assert colours(page) > 3
    keep(page, "parameters")

    page.reload()
    page.get_by_text("Add/Remove columns").click()
    for column in COLUMNS:
        page.get_by_text(column).click()
    page.get_by_text("Save", exact=True).click()
    page.wait_for_timeout(1000)
    shown = page.inner_text("body")
    for row in rows:
        assert row.notes["run directory"] in shown
        assert str(row.notes["trained parameters"]) in shown
    for name, option in best.notes["architecture"].items():
        assert f"{name}={option}" in shown
    keep(page, "columns")


def colours(page: Any) -> int:
    """Count the colours, neither grey nor faint, that the chart is drawn in."""
    found: int = page.evaluate(
        """() => {
            const canvas = document.querySelector('canvas');
            const {width, height} = canvas;
            const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
            const counts = {};
            for (let i = 0; i < data.length; i += 4) {
                const [r, g, b, a] = data.slice(i, i + 4);
                if (a < 250 || Math.max(r, g, b) - Math.min(r, g, b) < 40) continue;
                counts[[r, g, b]] = (counts[[r, g, b]] || 0) + 1;
            }
            return Object.values(counts).filter((count) => count > 20).length;
        }"""
    )
    return found


def keep(page: Any, name: str) -> None:
    """Keep a picture of the page, if somebody asked for it."""
    if folder := os.environ.get("PREFIXNAS_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"nni-{name}.png"))
