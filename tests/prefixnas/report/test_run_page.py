"""The page of a run: everything that is there, and nothing from outside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prefixnas.base.errors import UserError
from prefixnas.report.plots.confusion import confusion_figure
from prefixnas.report.plots.run import (
    draw_record,
)
from prefixnas.report.run_page import write_report
from prefixnas.run.answers import Answered, Answers, keep_answers
from prefixnas.run.events import Start
from prefixnas.run.record import read_record
from tests.prefixnas.recorded import COLUMNS, SPACE, SPACE_TEXT, TASKS, ending, events, write

pytestmark = pytest.mark.usefixtures("rendered")


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
    shown = [label for label, scored in COLUMNS.items() if scored]
    for word in [*TASKS, *shown, "0.950", "layer1", "darts", "note: </pre><b>bold</b>"]:
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
