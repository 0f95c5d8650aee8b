"""A comparison in numbers: what each run came to, and per variant the mean over the seeds.

Differences are paired by seed. With the few seeds that one can afford, a Student interval is wide,
and it says so: a difference whose 95 % interval holds zero is "within the spread".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from prefixnas.base.estimates import Difference, mean_and_spread, paired
from prefixnas.base.options import read_pairs
from prefixnas.compare.agreement import OVERALL, agreement
from prefixnas.compare.cells import REFERENCES
from prefixnas.compare.comparison import AVERAGE_RANDOM, Comparison
from prefixnas.compare.results import ALONE, CellResult
from prefixnas.multitrial.weights import WEIGHTS
from prefixnas.run.record import Record, decisions, read_record, run_space
from prefixnas.space.decisions import Decision


@dataclass(frozen=True)
class Summary:
    """A variant on a space, over the seeds.

    Attributes:
        space: The space.
        label: The variant.
        kind: As in `CellResult`.
        scores: Score by seed; the mean over the draws, for the average random architecture.
        runs: Its finished runs.
        refused: Why it does not run on this space.
        failed: How many runs failed.
        over: Differences from the references, by their labels.
        agreement: Share of pairs of seeds that take the same option, over the decisions searched.
        chance: What that share is where options are drawn uniformly.
        retrained: Score by seed of what was found, trained anew with the whole budget.
        over_retrained: The differences of `retrained`.
    """

    space: str
    label: str
    kind: str
    scores: Mapping[int, float]
    runs: Sequence[CellResult]
    refused: str | None
    failed: int
    over: Mapping[str, Difference]
    agreement: float | None
    chance: float | None
    retrained: Mapping[int, float]
    over_retrained: Mapping[str, Difference]

    def mean_of(self, key: str) -> float | None:
        """Return the mean of a number of the runs."""
        return mean_and_spread(getattr(run, key) for run in self.runs)[0]

    @property
    def mean(self) -> float | None:
        """The mean score."""
        return mean_and_spread(self.scores.values())[0]

    @property
    def spread(self) -> float | None:
        """The standard deviation of all runs' scores."""
        return mean_and_spread(run.score for run in self.runs)[1]

    @property
    def test(self) -> tuple[float | None, float | None]:
        """Mean and standard deviation of all runs' scores on the split `test`."""
        return mean_and_spread(run.test for run in self.runs)

    @property
    def task_scores(self) -> dict[str, tuple[float | None, float | None]]:
        """Mean and standard deviation of all runs' scores, by task."""
        return _by_task([run.task_scores or {} for run in self.runs])

    @property
    def task_tests(self) -> dict[str, tuple[float | None, float | None]]:
        """The same on the split `test`, of the tasks that have one."""
        return _by_task([run.task_tests or {} for run in self.runs])

    def data(self) -> dict[str, object]:
        """Return what `row` has, and what no cell of a table can hold: scores by seed and task."""
        scores, tests = (
            {task: {"score": mean, "score_sd": spread} for task, (mean, spread) in found.items()}
            for found in (self.task_scores, self.task_tests)
        )
        by_task = {"task_scores": scores, **({"task_tests": tests} if tests else {})}
        return {**self.row(), "scores": dict(self.scores), **by_task}

    def row(self) -> dict[str, object]:
        """Return the row of the summary table."""
        peak = max((run.peak_memory or 0 for run in self.runs), default=0)
        retrained, retrained_sd = mean_and_spread(self.retrained.values())
        test, test_sd = self.test
        row: dict[str, object] = {
            "space": self.space,
            "label": self.label,
            "kind": self.kind,
            "seeds": " ".join(map(str, self.scores)),
            "runs": len(self.runs),
            "failed": self.failed,
            "refused": self.refused,
            "score": self.mean,
            "score_sd": self.spread,
            "test": test,
            "test_sd": test_sd,
            "retrained": retrained,
            "retrained_sd": retrained_sd,
        }
        for name in COMPARED_WITH:
            for suffix, found in (("", self.over), ("_retrained", self.over_retrained)):
                other = found.get(name)
                key = f"over_{name.replace(' ', '_').replace('-', '_')}{suffix}"
                row |= {
                    key: other.mean if other else None,
                    f"{key}_relative": other.relative if other else None,
                    f"{key}_low": other.low if other and other.count > 1 else None,
                    f"{key}_high": other.high if other and other.count > 1 else None,
                    f"{key}_verdict": other.verdict if other else None,
                }
        numbers = ("search_steps", "steps", "search_seconds", "seconds", "parameters")
        return row | {
            **{key: self.mean_of(key) for key in numbers},
            "peak_memory": peak or None,
            "agreement": self.agreement,
            "agreement_by_chance": self.chance,
        }


RANDOM_SEARCH, HAND_MADE = "random search", "best hand-made"
COMPARED_WITH = (AVERAGE_RANDOM, RANDOM_SEARCH, HAND_MADE)


def summarise(comparison: Comparison, results: Sequence[CellResult]) -> dict[str, list[Summary]]:
    """Return the rows of each space's table: references first, then the variants."""
    spaces = dict.fromkeys(result.space for result in results if result.space != REFERENCES)
    return {space: _rows(comparison, space, results) for space in spaces}


def _rows(comparison: Comparison, space: str, results: Sequence[CellResult]) -> list[Summary]:
    groups: dict[tuple[str, str], list[CellResult]] = {}
    retrained: dict[str, dict[int, float]] = {}
    for result in results:
        if result.space not in (space, REFERENCES):
            continue
        if result.kind == "retrained":
            if result.score is not None:
                retrained.setdefault(result.label, {})[result.seed] = result.score
        else:
            groups.setdefault((result.kind, result.label), []).append(result)
    keys = sorted(groups, key=lambda key: _ORDER.index(key[0]))
    scores = {key: _by_seed(groups[key]) for key in keys}
    basis = _basis(scores, comparison.random_search)

    def over(ours: Mapping[int, float]) -> dict[str, Difference]:
        found = {name: paired(ours, theirs) for name, theirs in basis.items() if theirs is not ours}
        return {name: difference for name, difference in found.items() if difference is not None}

    rows = []
    for key in keys:
        kind, label = key
        group = groups[key]
        runs = [result for result in group if result.state == "finished"]
        anew = retrained.get(label, {}) if kind == "search" else {}
        share, chance = _agreement(runs) if kind in ("search", "draw") else (None, None)
        rows.append(
            Summary(
                space,
                label,
                kind,
                scores[key],
                runs,
                next((result.reason for result in group if result.state == "refused"), None),
                sum(result.state == "failed" for result in group),
                over(scores[key]),
                share,
                chance,
                anew,
                over(anew),
            )
        )
    return rows


_ORDER = (ALONE, "hand-made", "draw", "search")
"""Kinds of cells, in the order of their rows."""


def _basis(
    scores: Mapping[tuple[str, str], Mapping[int, float]], random_search: str
) -> dict[str, Mapping[int, float]]:
    """Return the scores by seed that all rows are compared with, by name."""
    basis = {
        AVERAGE_RANDOM: scores.get(("draw", AVERAGE_RANDOM), {}),
        RANDOM_SEARCH: scores.get(("search", random_search), {}),
    }
    made = [found for (kind, _), found in scores.items() if kind == "hand-made" and found]
    if made:
        basis[HAND_MADE] = max(made, key=lambda found: fmean(found.values()))
    return basis


def _by_seed(group: Sequence[CellResult]) -> dict[int, float]:
    """Return the score by seed, the mean where a seed has several draws."""
    found: dict[int, list[float]] = {}
    for result in group:
        if result.score is not None:
            found.setdefault(result.seed, []).append(result.score)
    return {seed: fmean(scores) for seed, scores in found.items()}


def _by_task(
    found: Sequence[Mapping[str, float]],
) -> dict[str, tuple[float | None, float | None]]:
    """Return mean and standard deviation over runs, by task."""
    tasks = dict.fromkeys(task for scores in found for task in scores)
    return {task: mean_and_spread(scores.get(task) for scores in found) for task in tasks}


def _agreement(runs: Sequence[CellResult]) -> tuple[float | None, float | None]:
    """Return how far the runs agree on what was searched, and chance."""
    if len(runs) < 2:
        return None, None
    choices = [run.architecture or {} for run in runs]
    found = agreement(choices, _searched(read_record(Path(runs[0].folder)), choices[0]))
    overall = [row for row in found if row.decision == OVERALL]
    return (overall[0].share, overall[0].chance) if overall else (None, None)


def _searched(record: Record, choices: Mapping[str, str]) -> list[Decision]:
    """Return the decisions that a gradient searched; without one, those that trials drew."""
    space, moved = run_space(record), decisions(record)
    if moved:
        found = [d for d in space.decisions if d.name in moved and len(d.options) > 1]
    else:
        settings = read_pairs(record.config.get("set") or (), "key 'set'", "DECISION=OPTION")
        weights = WEIGHTS.get(str(record.config.get("weights")), WEIGHTS["train"])
        found = [*weights.open_space(space, settings).decisions]
    names = {decision.name for decision in found}
    return [
        decision
        for decision in found
        if all(name in names or choices.get(name) in of for name, of in decision.conditions)
    ]
