"""Every number on a page against the JSON files beside it.

`python -m tests.pages FOLDER...` prints what the pages of finished runs, comparisons and studies
show and their files do not hold.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?(?!\w)")
"""A number by itself: none in a name (`layer0`)."""
DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
CLOCK = re.compile(r"\b(?:(\d+):)?(\d+):(\d\d)\b")
"""Hours, minutes and seconds."""
REACH = 1.959964
"""Standard errors that an interval reaches to either side."""


class Parts(HTMLParser):
    """The texts of a page by the heading that they stand under; on top, it is empty.

    What is shown word for word (`<pre>`) is left out, and so are prompts and answers of examples.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {"": []}
        self._heading, self._silent = "", 0
        self._in_heading = False
        self.feed(re.sub(r"(?s)<(style|title|pre|h1|dt)\b.*?</\1>", "", html))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._silent or ("class", "texts") in attrs:
            self._silent += tag == "div"
        if tag == "h2":
            self._heading, self._in_heading = "", True

    def handle_endtag(self, tag: str) -> None:
        self._silent -= bool(self._silent) and tag == "div"
        if tag == "h2":
            self._in_heading = False
            self.texts.setdefault(self._heading, [])

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self._heading += data
        elif not self._silent:
            self.texts[self._heading].append(data)


def numbers_in(value: Any) -> Iterator[float]:
    """Yield every number in what a JSON file holds, in its texts and keys as well."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from numbers_in(str(key))
            yield from numbers_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, str):
        yield from (float(found.replace(",", "")) for found in NUMBER.findall(value))
    elif value is not None and not isinstance(value, bool):
        yield float(value)


def unheld(text: str, held: Iterable[float]) -> list[str]:
    """Return the numbers of a text that none of those held becomes when it is rounded likewise.

    Times of a clock are seconds; they may be cut or rounded.
    """
    known = sorted(set(held))
    text = DATE.sub("", text)
    found = [
        clock[0]
        for clock in CLOCK.finditer(text)
        if not any(abs(value - _seconds(clock)) < 1 for value in known)
    ]
    for word in NUMBER.findall(CLOCK.sub("", text)):
        shown = float(word.replace(",", ""))
        digits = word.partition("e")[0].partition(".")[2]
        half = 0.5 * 10.0 ** -len(digits) * (1 + 1e-9)
        if "e" in word:
            half *= 10 ** float(word.partition("e")[2])
        if not any(abs(value - shown) <= half for value in known):
            found.append(word)
    return found


def _seconds(clock: re.Match[str]) -> int:
    hours, minutes, seconds = (int(part or 0) for part in clock.groups())
    return 3600 * hours + 60 * minutes + seconds


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _reaches(columns: Iterable[Mapping[str, Any] | None]) -> Iterator[float]:
    """Yield what intervals are shown of columns, or of differences: reaches and ends."""
    for column in columns:
        errors = dict((column or {}).get("standard_errors") or {})
        yield from (REACH * error for error in errors.values())
        if column and column.get("standard_error") is not None:
            reach = REACH * column["standard_error"]
            yield from (reach, column["score"] - reach, column["score"] + reach, -column["score"])


def of_run(folder: Path) -> dict[str, list[float]]:
    """Return what a run's page may show under each heading."""
    result, events = read(folder / "result.json"), lines(folder / "metrics.jsonl")

    def kind(name: str) -> list[dict[str, Any]]:
        return [event for event in events if event["event"] == name]

    columns, less = result["columns"], result.get("differences", [])
    evaluations, test = kind("evaluation"), result.get("test", {})
    counts = [float(sum(part["examples"].values())) for part in less]
    shares = [100 * result["trained_parameters"] / result["parameters"]] * ("parameters" in result)
    gap = [part for part in less if (part["of"], part["over"]) == ("mixture", "argmax child")]
    top = [kind("start"), {**result, "columns": None, "differences": None}, kind("discretisation")]
    return {
        "": [*numbers_in(top), *_reaches(gap), *shares],
        "Warnings": [*numbers_in([*kind("warning"), *kind("evidence")])],
        "Scores per task": [
            *numbers_in([columns, less, result["steps"]]),
            *_reaches(columns.values()),
            *_reaches(less),
            *counts,
            95.0,
        ],
        "Scores on the test split": [*numbers_in(test), *_reaches(test.values())],
        "Answers": [10.0, *(float(len(part["examples"])) for part in _answers(folder).values())],
        "Architecture": [*numbers_in(kind("architecture"))],
        "Search": [*numbers_in([kind("alpha")[-1:], kind("evidence")])],
        "Trials": [*numbers_in(kind("trial")), *_reaches(kind("trial")), float(len(kind("trial")))],
        "Training": [],
        "Every evaluation": [
            *numbers_in(evaluations),
            *_reaches(evaluations),
            float(len(evaluations)),
        ],
        "Time": [*_times(events)],
        "Configuration": [],
    }


def _answers(folder: Path) -> dict[str, Any]:
    path = folder / "answers.json"
    return read(path) if path.is_file() else {}


def _times(events: list[dict[str, Any]]) -> Iterator[float]:
    """Yield steps, seconds and seconds a step by phase, of a run that nothing interrupted."""
    spans: dict[str, float] = {}
    steps: dict[str, int] = {}
    phases = {event["phase"] for event in events if event["event"] == "step"}
    before = 0.0
    for event in events:
        phase = event.get("phase")
        evaluation = "evaluation" if event["event"] == "evaluation" else "other"
        place = phase if phase in phases else evaluation
        spans[place] = spans.get(place, 0.0) + event["time"] - before
        steps[place] = steps.get(place, 0) + (event["event"] == "step")
        before = event["time"]
    for place, seconds in spans.items():
        yield from (steps[place], seconds, seconds / max(1, steps[place]))


def of_comparison(folder: Path) -> dict[str, list[float]]:
    """Return what a comparison's page may show under each heading."""
    data = read(folder / "summary.json")
    runs = data["runs"]
    found = {
        "": [*numbers_in(data["about"])],
        "What it costs": [],
        "Runs": [*numbers_in(runs), float(len(runs))],
        "How to read the tables": [95.0],
    }
    for space, rows in data["spaces"].items():
        shares = [100 * v for row in rows for k, v in row.items() if "relative" in k and v]
        peaks = [
            (run.get("peak_device_memory") or run.get("peak_memory") or 0) / 2**20 for run in runs
        ]
        counts = [float(count) for row in rows for count in (row["runs"], len(row["scores"]))]
        mine = [run for run in runs if run["space"] in (space, "references")]
        scores = [*numbers_in([[run["score"], run["run_seed"]] for run in mine])]
        choices = [*numbers_in([run["architecture"] for run in mine])]
        found[f"Space {space}"] = [*numbers_in(rows), *shares, *peaks, *counts, *scores, *choices]
        found[f"Space {space}"].append(95.0)
    return found


def of_study(folder: Path) -> dict[str, list[float]]:
    """Return what a study's page may show under each heading."""
    data = read(folder / "report.json")
    best = [trial for trial in data["trials"] if trial["number"] == data["best"]]
    return {
        "": [*numbers_in(data["summary"])],
        "Best trial": [*numbers_in(best)],
        "Course": [],
        "Trials": [
            *numbers_in(data["trials"]),
            *(float(len(trial["epochs"])) for trial in data["trials"]),
        ],
        "Experiment": [],
    }


def strangers(folder: Path) -> list[tuple[str, str]]:
    """Return the numbers on the page of a folder, by heading, that its JSON files do not hold."""
    if (folder / "summary.json").is_file():
        held = of_comparison(folder)
    elif (folder / "report.json").is_file():
        held = of_study(folder)
    else:
        held = of_run(folder)
    parts = Parts((folder / "report.html").read_text(encoding="utf-8")).texts
    found = [(heading, "a heading that no file holds") for heading in parts.keys() - held.keys()]
    for heading in parts.keys() & held.keys():
        text = "\n".join(parts[heading])
        found += [(heading, word) for word in unheld(text, held[heading])]
    return found


def numbers_shown(folder: Path) -> int:
    """Return how many numbers the page of a folder shows as text."""
    parts = Parts((folder / "report.html").read_text(encoding="utf-8")).texts
    return sum(len(NUMBER.findall("\n".join(texts))) for texts in parts.values())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, numbers_shown(Path(name)), "numbers", strangers(Path(name)))
