"""JSON schemas: what a reader takes they take, unknown keys and wrong types they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from torch import nn

import peml.__main__
import prefixnas.__main__
from peml.commands.schema import KINDS
from peml.objective.config import LanguageModelConfig
from peml.tasks.spec import KEYS, make_spec
from prefixnas.base.errors import UserError
from prefixnas.base.options import fields_of, resolve
from prefixnas.commands.schema import KINDS as GENERAL
from prefixnas.launch.config import run_options
from prefixnas.run.strategy import STRATEGIES
from prefixnas.space.loading import space_from_yaml
from prefixnas.space.ops import OPS
from prefixnas.space.schema import space_schema
from tests import ROOT
from tests.prefixnas.experiments.small import small as small_study
from tests.whole.test_bad_input import FILES
from tests.whole.test_cli import configurations


@cache
def validator(kind: str) -> Draft202012Validator:
    from importlib import import_module

    module, _, function = KINDS[kind][0].partition(":")
    schema = getattr(import_module(module), function)()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(json.loads(json.dumps(schema)))


def faults(kind: str, data: object) -> list[str]:
    found = validator(kind).iter_errors(data)
    return [f"{list(error.absolute_path)}: {error.message[:300]}" for error in found]


def files() -> Iterator[tuple[str, Path]]:
    """Yield every YAML file of the repository that a user could have written, with its kind."""
    folders = {
        "search_spaces": "space",
        "tables": "table",
        "tables/tasks": "task",
        "tables/spaces": "space",
    }
    for folder, kind in folders.items():
        for path in sorted((ROOT / folder).glob("*.yaml")):
            yield kind, path
    for path in sorted((ROOT / "examples").rglob("*.yaml")):
        keys = yaml.safe_load(path.read_text())
        yield "experiment" if "base" in keys else "space", path


@pytest.mark.parametrize(("kind", "path"), files(), ids=lambda value: getattr(value, "name", value))
def test_every_file_of_the_repository_is_taken(
    kind: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, checked = yaml.safe_load(path.read_text()), validator(kind)
    if path.parent.name == "examples" and kind == "space":  # of operations of its own
        for name in ("sine", "cosine", "gated"):
            monkeypatch.setitem(OPS._registered, name, Waves)
        checked = Draft202012Validator(space_schema())
    assert [error.message for error in checked.iter_errors(data)] == []
    assert not checked.is_valid({**data, "nonsense": 1})


class Waves(nn.Module):
    """Stands for an operation of an example."""

    def __init__(self, width: int, frequency: float = 1.0) -> None:
        super().__init__()


def test_every_yaml_file_was_looked_at() -> None:
    found = {path for _, path in files()}
    every = {p for f in ("search_spaces", "tables", "examples") for p in (ROOT / f).rglob("*.yaml")}
    assert found == every


@settings(max_examples=40, deadline=None)
@given(values=configurations())
def test_every_configuration_is_taken_and_none_with_a_misspelt_key(values: dict[str, Any]) -> None:
    assert faults("run", values) == []
    assert faults("run", {**values, "lerning_rate": 0.1})


NUMBERS = ("3", "2.5", "1e-3")
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 3, 10**12, 2.5, -0.5, 1e-20]),
    st.sampled_from(["", "a", *NUMBERS, "none", "lora", "both", "joint", "gradient"]),
    st.lists(st.sampled_from(["a", 1, 2.5, True, None]), max_size=2),
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["a", 1, None]), max_size=2),
)
OPEN = {"strategy", "objective", "method", "plugin"}
"""Keys whose values are looked up, which `resolve` does not do."""


@settings(max_examples=400, deadline=None)
@given(strategy=st.sampled_from(STRATEGIES.names()), value=ANYTHING, data=st.data())
def test_schema_and_reader_agree_on_every_key(strategy: str, value: Any, data: Any) -> None:
    sections = {
        "run": run_options(LanguageModelConfig),
        "strategy": STRATEGIES.get(strategy),
        "objective": LanguageModelConfig,
    }
    key = data.draw(st.sampled_from(sorted(set(fields_of(sections)) - OPEN)))
    names = {"strategy": strategy, "objective": "language-model", "method": "lora"}
    try:
        resolve(sections, [("file.yaml", {key: value})])
        read = True
    except UserError:
        read = False
        assume(value not in NUMBERS)  # as numbers they may be beyond the limits of one
    assert (faults("run", {**names, key: value}) == []) is read


MISTAKES = {
    "space": ["key.yaml", "root_key.yaml", "no_options.yaml", "operation.yaml", "layers.yaml"],
    "run": [name for name in FILES if name.startswith("config_") and name != "config_twice.yaml"],
    "task": ["task_key.yaml", "task_choices.yaml"],
}
MISTAKES["space"] += ["decided_by.yaml", "parameter_name.yaml", "list.yaml", "nothing.yaml"]
OF_SEVERAL_KEYS = {"config_no_tasks.yaml", "config_darts.yaml", "config_both.yaml"}
"""Files that are wrong for what several keys say together, or not wrong at all."""


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in MISTAKES.items() for name in names]
)
def test_what_the_reader_refuses_the_schema_refuses(kind: str, name: str) -> None:
    if name not in OF_SEVERAL_KEYS:
        assert faults(kind, yaml.safe_load(FILES[name]))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("run", {"strategy": "random", "relaxation": "ste"}),
        ("run", {"method": "lora", "method_of_nobody": 3}),
        ("run", {"objective": "tabular", "lora_rank": 3}),
        ("run", {"baseline": "alone", "objective": "language-model"}),
        ("comparison", {"steps": 40}),
        ("comparison", {"seeds": "0,x"}),
        ("transfer", {"seed": 3}),
        ("experiment", {"base": {"seeed": 3}}),
        ("experiment", {"hyperparameters": {"learning_rate": {"loguniforn": [1, 2]}}}),
        ("experiment", {"hyperparameters": {"learning_rte": {"uniform": [1, 2]}}}),
        ("experiment", {"nni": {"gpus": 1}}),
        ("table", {"rows": {"a": {"seed": 3}}}),
        ("table", {"rows": {"a": {"lora_rnk": 3}}}),
        ("table", {"common": {"steps": [3]}}),
        ("table", {"paper": {"colums": []}}),
        ("task", {"kind": "choise"}),
        ("task", {"source": {"trian": "a.jsonl"}}),
    ],
)
def test_mistakes_are_refused(kind: str, data: dict[str, Any]) -> None:
    assert faults(kind, data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("run", {"strategy": "random", "trials": 3, "tasks": "embedded", "learning_rate": "1e-3"}),
        ("run", {"relaxation": "ste", "versions": {"torch": "2"}}),
        ("run", {"lora": "dora", "lora_rank": 3}),
        ("comparison", {"strategies": "darts,random:trials=3", "seeds": "0,1", "budget": 40}),
        ("comparison", {"strategies": {"darts": {"level": "joint"}}, "seeds": [0, 1], "trials": 3}),
        ("transfer", {"tasks": ["a"], "steps": 30}),
        ("experiment", {"hyperparameters": {"method": {"choice": [{"lora": {"lora_rank": {
            "int": [1, 3]}}}, "full"]}}}),
        ("table", {"rows": {"a": None, "b": {"method": "dora"}}, "common": {"steps": "${N:-3}"}}),
        ("task", {"choices": [0, 1.5, "a"], "label_map": {"1": 0, "2": "b"}, "gamma": "1e-1"}),
        ("task", {"source": {"train": ["a.jsonl", "b.jsonl"]}, "metrics": "f1", "name": None}),
    ],
)  # fmt: skip
def test_other_ways_to_write_it_are_taken(kind: str, data: dict[str, Any]) -> None:
    assert faults(kind, data) == []


def test_a_study_of_the_tests_is_taken(tmp_path: Path) -> None:
    file = small_study(tmp_path / "small.yaml", pruner="hyperband", early_stopping={"patience": 2})
    data = yaml.safe_load(file.read_text())
    assert faults("experiment", data) == []


def test_every_key_of_a_task_is_described_and_takes_what_is_read() -> None:
    properties = validator("task").schema["properties"]
    assert set(properties) == set(KEYS) and all(p["description"] for p in properties.values())
    for value in (None, "a", 3, 0, 0.5, True, ["a", "b"], {"train": "a"}, [], {}):
        for key in KEYS:
            try:
                make_spec({key: value})
            except UserError:
                continue
            assert faults("task", {key: value}) == [], (key, value)


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_printed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    mains: list[Callable[[list[str]], int]] = [peml.__main__.main]
    mains += [prefixnas.__main__.main] if kind in GENERAL else []
    for main in mains:
        for flags in ([], ["--json"]):
            assert main(["schema", kind, *flags]) == 0
            printed = json.loads(capsys.readouterr().out)
            assert printed == validator(kind).schema
            assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_kinds_are_listed_and_a_wrong_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert peml.__main__.main(["schema"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(KINDS)
    assert peml.__main__.main(["schema", "tsak"]) == 2
    assert "did you mean 'task'?" in capsys.readouterr().err


def test_operations_of_a_plugin_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    space = yaml.safe_load((ROOT / "examples" / "custom_space.yaml").read_text())
    argv = ["schema", "space", "--plugin", str(ROOT / "examples" / "custom_operation.py")]
    assert prefixnas.__main__.main(argv) == 0
    schema = json.loads(capsys.readouterr().out)
    assert Draft202012Validator(schema).is_valid(space)
    assert not Draft202012Validator(schema).is_valid({**space, "stack": {"cell": "sinee"}})
    space_from_yaml(yaml.safe_dump(space))
