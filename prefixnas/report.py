"""The report of a run: one HTML file with everything inside, no scripts, nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import yaml

from prefixnas.errors import UserError
from prefixnas.files import write_text
from prefixnas.plots import TITLES, draw_record, write_plots
from prefixnas.progress import clock
from prefixnas.record import Event, Record, by_layer, final_probabilities, read_events, read_record
from prefixnas.space import SearchSpace
from prefixnas.tables import AVERAGE, best_of, score_rows, show, summary, table
from prefixnas.trial_plots import tried

__all__ = ["read_events", "show", "table", "write_plots", "write_report"]


def write_report(run_dir: Path, space: SearchSpace | None = None) -> Path:
    """Draw the plots and write `report.html` of a run, finished or not.

    What the run does not have (a result, alphas, warnings) is left out.

    Args:
        run_dir: The run folder.
        space: The run's space, for the drawing of the architecture; the one that the run names
            is loaded if not given.

    Returns:
        The path of the report.

    Raises:
        UserError: No run folder, a damaged file in it, or a folder that cannot be written.
    """
    record = read_record(run_dir)
    note = ""
    if space is None and record.architecture is not None:
        try:
            space = run_space(record)
        except UserError as error:
            note = f"The architecture is not drawn: {error}"
    plots = draw_record(record, space)
    path = run_dir / "report.html"
    try:
        write_text(path, render(record, plots, note))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def run_space(record: Record) -> SearchSpace:
    """Load the space that a run was on: its `space.yaml`, or what its configuration names.

    Raises:
        UserError: The space cannot be found any more, or the architecture is not of it.
    """
    # Building a space checks its operations, which needs torch; reading a run does not.
    from prefixnas.space_yaml import load_space, space_from_yaml

    kept = record.folder / "space.yaml"
    said = str(kept) if kept.is_file() else record.config.get("space") or record.start("space")
    if isinstance(said, Mapping):
        space = space_from_yaml(yaml.safe_dump(dict(said), sort_keys=False), "space of the run")
    elif isinstance(said, str):
        space = load_space(said)
    else:
        raise UserError(f"{record.folder}: the run does not say which space it is on")
    if record.architecture is not None:
        space.validate(record.architecture)
    return space


_SEARCH = ("alphas", "trajectories", "entropy", "discretisation", "gradients", "stability")


def render(record: Record, plots: Mapping[str, Path], note: str = "") -> str:
    """Return the HTML text of the report.

    Args:
        record: The run.
        plots: PNG files by name; those there are.
        note: A sentence under the architecture, as plain text.
    """
    sections = [
        _warnings(record.warnings()),
        _section("Scores per task", _score_table(record), _image("scores", plots)),
        _section(
            "Architecture",
            _architecture_table(record),
            _image("architecture", plots),
            f"<p class='note'>{escape(note)}</p>" if note else "",
        ),
        _section("Search", *(_image(name, plots) for name in _SEARCH), _ranking(record)),
        _section("Trials", _image("trials", plots), _trial_table(record)),
        _section("Training", _image("losses", plots)),
        _section("Every evaluation", _evaluations(record.of("evaluation"))),
        _section("Time", _timing(record)),
        _section("Configuration", _config(record.config)),
    ]
    facts = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
        for label, text in summary(record).items()
    )
    return _PAGE.substitute(title=escape(record.name), facts=facts, body="".join(sections))


def _section(title: str, *parts: str) -> str:
    content = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _warnings(messages: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return f"<section class='warnings'><h2>Warnings</h2><ul>{items}</ul></section>" * bool(items)


def _image(name: str, plots: Mapping[str, Path]) -> str:
    if name not in plots:
        return ""
    data = base64.b64encode(plots[name].read_bytes()).decode("ascii")
    title = escape(TITLES[name])
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f"<div class='paper'><img alt='{title}' src='data:image/png;base64,{data}'></div></figure>"
    )


def _grid(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """Return a table of cells that are escaped already; the first of a row is its heading."""
    top = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    body = ""
    for row in rows:
        first, *rest = row
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        body += f"<tr><th scope='row'>{first}</th>{cells}</tr>"
    return (
        f"<div class='wide'><table class='{kind}'><thead><tr>{top}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _score_table(record: Record) -> str:
    columns = record.columns()
    rows = []
    for name, scores in score_rows(columns):
        best = best_of(scores)
        cells = [
            "-" if score is None else f"<b>{score:.3f}</b>" if index in best else f"{score:.3f}"
            for index, score in enumerate(scores)
        ]
        rows.append([escape(name), *cells])
    if not rows:
        return ""
    kind = "numbers average" if rows[-1][0] == AVERAGE else "numbers"
    return _grid(["task", *map(escape, columns)], rows, kind)


def _architecture_table(record: Record) -> str:
    if not record.architecture:
        return ""
    layers = by_layer(record.architecture)
    keys = list(dict.fromkeys(key for layer in layers.values() for key in layer))
    rows = [
        [escape(layer or "all"), *(escape(options.get(key, "-")) for key in keys)]
        for layer, options in layers.items()
    ]
    return _grid(["layer", *map(escape, keys)], rows)


def _ranking(record: Record) -> str:
    chosen: Mapping[str, str] = record.architecture or {}
    rows = []
    for decision, options in final_probabilities(record).items():
        cells = []
        for option, probability in options.items():
            value = "pruned" if probability == 0 else f"{probability:.3f}"
            text = f"{escape(option)}&nbsp;{value}"
            mark = "b" if option == chosen.get(decision) else "span"
            cells.append(f"<{mark}>{text}</{mark}>")
        rows.append([escape(decision), ", ".join(cells)])
    if not rows:
        return ""
    return _details("Probabilities as last recorded", _grid(["decision", "candidates"], rows))


def _trial_table(record: Record) -> str:
    trials = tried(record)
    names = dict.fromkeys(name for trial in trials for name in trial.choices)
    differ = [name for name in names if len({trial.choices.get(name) for trial in trials}) > 1]
    rows = [[t.name, _number(t.score), *(t.choices.get(n, "-") for n in differ)] for t in trials]
    grid = _grid(["trial", "score", *map(escape, differ)], (map(escape, row) for row in rows))
    return _details(f"{len(rows)} architectures tried", grid) if rows else ""


def _evaluations(events: Sequence[Event]) -> str:
    rows = []
    for event in events:
        for task, metrics in event["scores"].items():
            values = ", ".join(f"{escape(m)} {_number(v)}" for m, v in metrics.items())
            rows.append([escape(event["name"]), escape(event["split"]), escape(task), values])
    if not rows:
        return ""
    head = ["model", "split", "task", "metrics"]
    return _details(f"{len(events)} evaluations, all metrics", _grid(head, rows))


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else escape(str(value))


def _timing(record: Record) -> str:
    rows = [
        [
            escape(place),
            str(steps) if steps else "-",
            clock(seconds),
            f"{seconds / steps:.3f}" if steps else "-",
        ]
        for place, (steps, seconds) in record.timing().items()
    ]
    return _grid(["phase", "steps", "time", "seconds per step"], rows, "numbers") if rows else ""


def _config(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    return _details("config.yaml", f"<pre>{escape(text)}</pre>")


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1d2127; --dim: #626a75; --page: #fff; --line: #dfe2e6;
  --soft: #f4f5f7; --warn: #fff4dd; --warn-line: #e0a100; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6ea; --dim: #9aa2ad; --page: #16191d;
  --line: #343a42; --soft: #20252b; --warn: #33290f; --warn-line: #a97d10; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 62rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .8rem; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .7rem; font-size: 1.2rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem;
  margin: 0; }
dl div { padding: .5rem .7rem; background: var(--soft); border-radius: .4rem; }
dt { color: var(--dim); font-size: .8rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { color: var(--dim); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; white-space: nowrap;
  padding: .3rem 0 .3rem 1.1rem; font-variant-numeric: tabular-nums; }
.numbers thead th:not(:first-child) { white-space: normal; }
.average tbody tr:last-child > * { border-top: 2px solid var(--line); font-weight: 600; }
.average tbody tr:last-child td { font-weight: 400; }
figure { margin: 1.2rem 0; }
figcaption { color: var(--dim); font-size: .9rem; margin-bottom: .35rem; }
.paper { background: #fff; border: 1px solid var(--line); border-radius: .4rem; padding: .5rem;
  overflow-x: auto; }
img { display: block; width: 100%; min-width: 34rem; height: auto; }
.warnings { margin-top: 1.2rem; padding: .1rem 1rem; background: var(--warn);
  border-left: 4px solid var(--warn-line); border-radius: .3rem; overflow-wrap: anywhere; }
.warnings h2 { margin: .6rem 0 0; font-size: 1rem; }
.warnings ul { margin: .3rem 0 .7rem; padding-left: 1.2rem; }
.note { color: var(--dim); }
details { margin: .6rem 0; }
summary { cursor: pointer; padding: .25rem 0; }
pre { overflow-x: auto; padding: .8rem; background: var(--soft); border-radius: .4rem;
  font-size: .85rem; }
@media (max-width: 36rem) { .numbers td, .numbers thead th:not(:first-child)
  { padding-left: .7rem; } table { font-size: .86rem; } }
@media print { details > * { display: block; } .paper { border: none; } }
</style>
</head>
<body>
<h1>$title</h1>
<dl>$facts</dl>
$body
</body>
</html>
""")
