from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peml.objective.config import LanguageModelConfig
from peml.tables.record import RunRecord
from peml.tables.work import seconds_a_step, weights_not_in_use
from tests.workbench import write_lines

SCORE = st.floats(-1, 1)


def step(phase: str, number: int, time: float) -> dict[str, object]:
    event = {"event": "step", "time": time, "phase": phase, "step": number, "total": 9}
    return {**event, "losses": {"mood": 1.0}, "loss": 1.0, "lr": 0.1}


def evaluation(time: float) -> dict[str, object]:
    scores = {"scores": {}, "task_scores": {}, "score": 0.5}
    return {"event": "evaluation", "time": time, "name": "x", "split": "validation", **scores}


def test_seconds_of_a_step_leave_out_what_lies_between(tmp_path: Path) -> None:
    events = [
        step("search", 0, 5.0),
        step("search", 2, 6.0),  # 0.5 s each: every second step is told of
        evaluation(30.0),
        step("train", 0, 90.0),
        step("train", 1, 90.7),
        step("train", 2, 0.2),  # a resumed run: its clock starts again
        step("train", 3, 0.8),
    ]
    write_lines(tmp_path / "metrics.jsonl", events)
    assert seconds_a_step(tmp_path) == pytest.approx(0.6)


def test_without_two_steps_no_time_is_known(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [step("train", 0, 5.0)])
    assert seconds_a_step(tmp_path) is None


def test_heads_of_other_tasks_and_parts_of_other_tasks_are_not_in_use(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LanguageModelConfig(
        model=str(bench / "bert"), tasks=[str(bench / "mood"), str(bench / "order")], lora_rank=2
    )
    objective = config.build(4, seed=0)
    assert objective.heads is not None
    width = objective.lm.hidden_size
    assert weights_not_in_use(objective) == 2 * (width + 1)  # mood has two answers, order three
    method = objective.method
    in_use = method.weights_in_use() - 5
    monkeypatch.setattr(method, "weights_in_use", lambda: in_use)
    assert weights_not_in_use(objective) == 2 * (width + 1) + 5


@given(
    st.builds(
        RunRecord,
        selection=SCORE,
        validation=st.none() | SCORE,
        tasks=st.dictionaries(st.text(min_size=1), SCORE),
        weights=st.integers(0, 10**12),
        weights_in_use=st.none() | st.integers(0, 10**12),
        saved_bytes=st.none() | st.integers(0, 10**12),
        seconds_a_step=st.none() | st.floats(0, 1e6),
        metrics=st.none() | st.dictionaries(st.text(), st.lists(st.text())),
    )
)
def test_a_record_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, record: RunRecord
) -> None:
    path = tmp_path_factory.mktemp("record") / "row.json"
    record.write(path)
    assert RunRecord.read(path) == record
    assert json.loads(path.read_text())["weights"] == record.weights
