"""What is said under the scores of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from prefixnas.report.remarks import difference_table, remarks
from prefixnas.run.answers import Answers, keep_answers
from prefixnas.run.evaluation import (
    BASELINE,
    EQUAL_WEIGHTS,
    TRAINED,
    UNTOUCHED,
    Evaluation,
    differences,
)
from prefixnas.run.record import Record

BASELINES = {BASELINE: "LoRA alone", EQUAL_WEIGHTS: "LoRA r=63"}
BAD, FAIR, GOOD = [1, 0] * 50, [1, 1, 0, 0, 1] * 20, [1, 1, 1, 1, 0] * 20
OTHER = [0, 1, 1, 0, 1] * 20


def scored(values: Sequence[int], paired: bool = True) -> Evaluation:
    mean = sum(values) / len(values)
    moved = {"t": [value - mean for value in values]} if paired else {}
    return Evaluation({"t": {"accuracy": mean}}, {"t": mean}, {}, moved)


def record(
    columns: Mapping[str, Evaluation],
    baselines: Mapping[str, str] = BASELINES,
    folder: Path = Path("run"),
) -> Record:
    result: dict[str, Any] = {
        "columns": {label: column.to_json() for label, column in columns.items()},
        "differences": differences(columns),
        "baselines": baselines,
        "steps": {"search": 3, "total": 7},
    }
    return Record(folder, [], result, {}, None)


def test_a_sentence_tells_what_the_difference_is_worth() -> None:
    columns = {UNTOUCHED: scored(BAD), "LoRA alone": scored(FAIR), "LoRA r=63": scored(GOOD)}
    run = record({**columns, TRAINED: scored(GOOD)})
    (said,) = remarks(run)
    assert said.startswith("On the same 100 validation examples, the trained child is better than")
    assert "better than LoRA alone by 0.200 (95 % interval +0.053 to +0.347)" in said
    assert said.endswith("and is as good as LoRA r=63 on every single one.")
    (unsure, _) = remarks(record({**columns, "LoRA r=63": scored(OTHER), TRAINED: scored(FAIR)}))
    assert "cannot be told from LoRA r=63 (+0.000, 95 % interval -0.125 to +0.125)." in unsure
    (worse,) = remarks(record({**columns, TRAINED: scored(BAD)}))
    assert "is worse than LoRA r=63 by 0.300" in worse
    lines = difference_table(run).markdown().replace("**", "").splitlines()
    assert [line.split(" | ")[-2:] for line in lines[2:]] == [["> +0.200 ± 0.147", "= same |"]] * 2


def test_without_baselines_it_is_the_untouched_model_that_counts() -> None:
    (said,) = remarks(record({UNTOUCHED: scored(BAD), TRAINED: scored(GOOD)}, {}))
    assert "better than untouched by 0.300" in said


@pytest.mark.parametrize("paired", [True, False])
def test_where_nothing_beats_the_untouched_model_training_was_too_short(paired: bool) -> None:
    near = {UNTOUCHED: scored(FAIR, paired), "LoRA alone": scored(FAIR, paired)}
    *_, said = remarks(record({**near, TRAINED: scored(FAIR, paired)}))
    assert said.startswith(
        "No column stands out from the untouched model: train longer (--steps, 7"
    )
    found = remarks(record({**near, TRAINED: scored(GOOD, paired)}))
    assert len(found) == paired and "train longer" not in "".join(found)


def test_where_all_trained_models_are_equal_training_was_too_short() -> None:
    same = {UNTOUCHED: scored(BAD), "LoRA alone": scored(GOOD), TRAINED: scored(GOOD)}
    *_, said = remarks(record(same))
    assert said.startswith("All models that were trained score the same") and "longer" in said


def test_tasks_that_are_always_answered_alike_are_named(tmp_path: Path) -> None:
    columns = {UNTOUCHED: scored(BAD), "LoRA alone": scored(FAIR), TRAINED: scored(GOOD)}
    kept = {"stuck": [[0, 3], [0, 4]], "moving": [[1, 2], [0, 4]]}
    for column in (UNTOUCHED, TRAINED):
        shown = {task: Answers([], ["x", "y"], counts) for task, counts in kept.items()}
        keep_answers(tmp_path, column, shown)
    *_, said = remarks(record(columns, folder=tmp_path))
    assert "every example of stuck the same answer: train longer" in said


def test_nothing_is_said_of_a_run_that_goes_on_or_is_of_an_earlier_version() -> None:
    assert remarks(Record(Path("run"), [], None, {}, None)) == []
    old = record({UNTOUCHED: scored(BAD), "LoRA alone": scored(FAIR), TRAINED: scored(GOOD)})
    assert old.result is not None
    without = {key: value for key, value in old.result.items() if key != "differences"}
    assert remarks(Record(Path("run"), [], without, {}, None)) == []
    assert not difference_table(Record(Path("run"), [], without, {}, None)).rows
