"""Training from Python does what the commands do, and returns what their files hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import yaml

import peml
from peml.__main__ import main
from peml.tasks.given import write_task
from prefixnas import SearchResult, UserError
from prefixnas.run.events import Event, Step
from tests.workbench import digest, events

SMALL = {"steps": 4, "prefix_length": 3, "lora_rank": 2, "batch_size": 4, "log_every": 1}
ROWS = [
    {"id": number, "input": f"{number} film so {word}", "label": label}
    for number in range(12)
    for word, label in (("good", "yes"), ("bad", "no"))
]


def flags(keys: dict[str, Any]) -> list[str]:
    return [
        word for key, value in keys.items() for word in ("--" + key.replace("_", "-"), str(value))
    ]


@pytest.fixture(scope="module")
def heard() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def run(bench: Path, heard: list[Event], tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A search that was begun from Python."""
    return peml.search(
        model=bench / "llama",
        tasks=[bench / "mood", str(bench / "order")],
        out=tmp_path_factory.mktemp("runs") / "called",
        on_event=heard.append,
        progress=False,
        resume=True,  # it was not begun, so it begins
        **SMALL,
    )


def test_a_call_leaves_what_the_command_leaves(
    run: SearchResult, bench: Path, tmp_path: Path
) -> None:
    from prefixnas.__main__ import main as prefixnas

    out = tmp_path / "typed"
    argv = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), str(bench / "order")]
    assert prefixnas(["search", *argv, *flags(SMALL), "--out", str(out)]) == 0
    assert (run.folder / "config.yaml").read_text() == (out / "config.yaml").read_text()
    assert events(run.folder) == events(out)
    assert digest(run.adapter) == digest(out / "adapter")


def test_the_result_is_what_the_files_hold(run: SearchResult, heard: list[Event]) -> None:
    stored = json.loads((run.folder / "result.json").read_text())
    assert run.scores == {
        label: column["task_scores"] for label, column in stored["columns"].items()
    }
    assert [*run.scores["trained child"]] == ["mood", "order"]
    assert dict(run.architecture.choices) == stored["architecture"]
    assert run.adapter == run.folder / "adapter"
    assert run.events == heard
    assert sum(isinstance(event, Step) for event in heard) == 4 * 3  # with two baselines


def test_what_takes_a_folder_takes_the_result(run: SearchResult, tmp_path: Path) -> None:
    assert peml.load(run, device="cpu").manifest.tasks[0]["name"] == "mood"
    scored = peml.evaluate(run, device="cpu")
    assert {task: values["accuracy"] for task, values in scored.items()} == pytest.approx(
        run.scores["trained child"]
    )
    answers = peml.predict(run, [{"input": "film good", "choices": ["yes", "no"]}], "mood")
    assert [answer.prediction in ("yes", "no") for answer in answers] == [True]
    peml.export(run, tmp_path / "out")
    assert (tmp_path / "out" / "peml.json").is_file()


def test_tasks_to_evaluate_are_named_as_for_the_command(
    run: SearchResult, bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [bench / "mood", bench / "order"]
    scores = peml.evaluate(run, asked, "train", eval_limit=3, device="cpu")
    argv = ["evaluate", str(run.folder), "--tasks", *map(str, asked), "--split", "train"]
    capsys.readouterr()
    assert main([*argv, "--eval-limit", "3", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == scores.evaluation.to_json()
    assert peml.evaluate(run, bench / "mood", "train", device="cpu") == {"mood": scores["mood"]}


def test_a_call_goes_on_with_a_run(run: SearchResult, heard: list[Event]) -> None:
    """One that is over is read, and nothing happens again."""
    before, count = digest(run.folder), len(heard)
    again = peml.search(out=run.folder, resume=True, on_event=heard.append, progress=False)
    assert again == run and len(heard) == count
    assert digest(run.folder)["metrics.jsonl"] == before["metrics.jsonl"]


# tasks in memory

SHAPES: dict[str, Callable[[], Any]] = {
    "records": lambda: ROWS,
    "a dataset": lambda: datasets.Dataset.from_list(ROWS),
    "a data frame": lambda: pd.DataFrame(ROWS),
    "splits": lambda: {"train": ROWS[:20], "validation": datasets.Dataset.from_list(ROWS[20:])},
    "a dict of datasets": lambda: datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS[:20])}
        | {"validation": datasets.Dataset.from_list(ROWS[20:])}
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_records_in_memory_are_a_task(shape: str, tmp_path: Path) -> None:
    given = {"name": "films", "source": SHAPES[shape](), "template": "{input} ?", "kind": "choice"}
    file = write_task(given, tmp_path)
    [read] = peml.load_tasks([file])
    examples = [example for split in read.splits.values() for example in split]
    prompts = sorted((example.prompt, example.choices) for example in examples)
    assert prompts == sorted((f"{row['input']} ?", ("no", "yes")) for row in ROWS)


def test_a_run_names_the_records_that_it_was_given(bench: Path, tmp_path: Path) -> None:
    found = peml.train(
        model=bench / "llama",
        tasks=[{"name": "films", "source": ROWS}, bench / "mood"],
        method="lora",
        steps=1,
        out=tmp_path / "run",
        progress=False,
        resume=True,
    )
    assert [*found.scores["trained child"]] == ["films", "mood"]
    config = yaml.safe_load((found.folder / "config.yaml").read_text())
    assert config["tasks"] == [str(tmp_path / "run-tasks" / "films.yaml"), str(bench / "mood")]
    assert [*peml.evaluate(found, device="cpu")] == ["films", "mood"]


def test_names_of_labels_are_kept(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"input": str(n), "label": n % 2} for n in range(10)])
    named = rows.cast_column("label", datasets.ClassLabel(names=["even", "odd"]))
    [task] = peml.load_tasks([write_task({"name": "parity", "source": named}, tmp_path)])
    assert task.choices == ("even", "odd")


def test_a_run_that_goes_on_keeps_its_records(tmp_path: Path) -> None:
    task = {"name": "films", "source": ROWS}
    write_task(task, tmp_path)
    before = digest(tmp_path)
    write_task(task, tmp_path, anew=False)
    with pytest.raises(UserError, match=r"films\.jsonl: holds other data than task 'films'"):
        write_task({**task, "source": ROWS[1:]}, tmp_path, anew=False)
    assert digest(tmp_path) == before


def test_files_in_a_task_given_by_its_keys_are_found(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [{**row, "choices": ["yes", "no"]} for row in ROWS]
    monkeypatch.chdir(bench)
    for source in ("mood", Path("mood"), {"train": "mood/train.jsonl", "validation": own}):
        file = write_task({"name": "films", "source": source}, tmp_path)
        assert peml.load_tasks([file])[0].splits["train"]


# mistakes


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"stepz": 3}, "peml.train: unknown key 'stepz': did you mean 'steps'?"),
        ({"steps": 0}, "peml.train: key 'steps': must be at least 1"),
        ({"tasks": "nope"}, "no task 'nope'"),
        ({"tasks": 3}, "tasks: expected a path, a name or the keys of a task file, not 3"),
        ({"tasks": [3]}, "tasks: expected a path, a name or the keys of a task file, not 3"),
        ({"out": 3}, "peml.train: out: expected a path, not 3"),
        ({"config": 3}, "peml.train: config: expected a path, not 3"),
        ({"on_event": 3}, "peml.train: on_event: expected a function, not 3"),
        ({"strategy": "darts"}, "key 'strategy': peml.train takes 'fixed', not 'darts'"),
        ({"resume": True, "out": None}, "peml.train: resume needs out"),
        ({"config": "nope.yaml"}, "nope.yaml: no such file"),
        ({"plugin": "no_such_plugin"}, "plugin 'no_such_plugin'"),
        ({"tasks": [{"source": ROWS}]}, "needs the key 'name'"),
        ({"tasks": [{"name": "a"}]}, "needs the key 'source'"),
        ({"tasks": [{"name": "../a", "source": ROWS}]}, "key 'name'"),
        ({"tasks": [{"name": "a", "source": {"tran": ROWS}}]}, "did you mean 'train'?"),
        ({"tasks": [{"name": "a", "source": 3}]}, "key 'source'"),
        ({"tasks": [{"name": "a", "source": [{"label": object()}]}]}, "written as JSON"),
        ({"tasks": [{"name": "a", "source": ROWS, "kinds": "choice"}]}, "unknown key 'kinds'"),
    ],
)
def test_a_mistake_is_an_error_to_catch(
    keys: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        peml.train(**{"out": tmp_path / "run", "progress": False, **keys})
    assert said in str(error.value) and "\n" not in str(error.value)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_in_use_stays_as_it_is(run: SearchResult) -> None:
    before = digest(run.folder.parent)
    with pytest.raises(UserError, match="holds a run already"):
        peml.train(tasks={"name": "films", "source": ROWS}, out=run.folder, progress=False)
    assert digest(run.folder.parent) == before
