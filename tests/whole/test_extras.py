"""Without any extra: training, loading and predicting work; what needs one is refused in a line."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from prefixnas.base.extras import extra_of, lacking, missing, require
from tests import ROOT, bare
from tests.workbench import SMALL

PROGRAM = """
import contextlib, io, json, sys
from tests import bare
bare.hide()
import peml.__main__, prefixnas.__main__
mains = {"peml": peml.__main__.main, "prefixnas": prefixnas.__main__.main}
done = []
for program, *arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = mains[program](arguments)
    done.append([code, said.getvalue()])
import peml
adapted = peml.load("run", device="cpu")
[answer] = peml.predict(adapted, [{"input": "film good a b"}], "mood")
print(json.dumps({"done": done, "answer": answer.prediction}))
"""

TRAIN = ["peml", "train", "--space", "mlp", *SMALL]
WORKS = {
    "train": [*TRAIN, "--model", "llama", "--tasks", "mood", "--out", "run"],
    "predict": ["peml", "predict", "run", "new.jsonl", "--out", "answers.jsonl"],
    "evaluate": ["peml", "evaluate", "run"],
    "export": ["peml", "export", "run", "out", "--format", "peft"],
    "show": ["prefixnas", "show", "run"],
}
REFUSED = {
    "report": ("plots", ["prefixnas", "report", "run"]),
    "compare": ("plots", ["prefixnas", "compare", "--strategies", "random", "--out", "compared"]),
    "tpe": ("tune", ["prefixnas", "search", "--strategy", "tpe", "--out", "tpe"]),
    "tune": ("tune", ["prefixnas", "tune", "study.yaml", "--out", "study"]),
    "rouge": ("rouge", ["peml", "tasks", "rouge.yaml"]),
    "hub": ("hub", ["peml", "tasks", "hub.yaml"]),
    "gguf": ("gguf", [*TRAIN, "--model", "model.gguf", "--tasks", "mood", "--out", "gguf"]),
}


@pytest.fixture(scope="module")
def said(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and output of every command, all in one process without extras."""
    place = tmp_path_factory.mktemp("bare")
    for name in ("llama", "mood"):
        (place / name).symlink_to(bench / name)
    (place / "new.jsonl").write_text('{"id": 1, "input": "film good a b"}\n')
    (place / "model.gguf").write_text("")
    (place / "rouge.yaml").write_text("source: mood\nkind: generation\nmetrics: rougeL\n")
    (place / "hub.yaml").write_text("source: glue\nconfig: sst2\n")
    (place / "study.yaml").write_text("name: s\nhyperparameters: {lora_rank: {int: [1, 2]}}\n")
    given = {path.name for path in place.iterdir()}
    calls = [*WORKS.values(), *(call for _, call in REFUSED.values())]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}"
    command = [sys.executable, "-c", code, json.dumps(calls)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["answer"] in ("yes", "no")
    left = {path.name for path in place.iterdir()} - given
    assert left == {"run", "answers.jsonl", "out"}  # what is refused leaves nothing
    assert not (place / "run" / "report.html").exists()
    names = [*WORKS, *REFUSED]
    return {name: (code, text) for name, (code, text) in zip(names, found["done"], strict=True)}


@pytest.mark.parametrize("name", WORKS)
def test_the_core_is_enough(name: str, said: dict[str, tuple[int, str]]) -> None:
    assert said[name][0] == 0, said[name][1]


def test_a_run_says_what_its_report_needs(said: dict[str, tuple[int, str]]) -> None:
    assert "the report of this run needs matplotlib" in said["train"][1]
    assert "pip install 'prefixnas[plots]'" in said["train"][1]


@pytest.mark.parametrize("name", REFUSED)
def test_a_missing_extra_is_one_line_that_names_it(
    name: str, said: dict[str, tuple[int, str]]
) -> None:
    code, text = said[name]
    assert code == 2
    assert len(text.splitlines()) == 1, text
    assert f"pip install 'prefixnas[{REFUSED[name][0]}]'" in text


def test_what_is_for_all_commands_of_the_readme_is_in_one_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    [line] = extras["all"]
    named = set(line.partition("[")[2].rstrip("]").split(","))
    assert named == {extra for extra, _ in REFUSED.values()}


def test_no_package_of_an_extra_is_in_the_core() -> None:
    packages = {"matplotlib": "plots", "optuna": "tune", "datasets": "hub", "nltk": "rouge"}
    packages |= {"torchmetrics": "rouge", "gguf": "gguf"}
    assert {name: extra_of(name) for name in packages} == packages
    assert not set(packages) & bare.core()


def test_a_module_that_no_extra_holds_is_named_alone() -> None:
    assert lacking("torch", "it") is None
    assert (
        lacking("not_there", "it")
        == "it needs not_there, which is not installed: pip install not_there"
    )
    assert missing(ModuleNotFoundError("no", name="not_there")) is None
    assert missing(ModuleNotFoundError("no")) is None
    require("json", "it")
