"""What all commands do alike: one JSON document, one stream for results, one for the rest."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import peml.__main__
import prefixnas.__main__
from prefixnas.commands.output import FLAGS, Output, add_output, plain
from tests import ROOT
from tests.workbench import SMALL

Main = Callable[[Sequence[str]], int]
SEARCH, PEML = prefixnas.__main__.main, peml.__main__.main


def documented(main: Main, command: str) -> set[str]:
    """Return the keys that the documentation names for a command."""
    name = f"`{'prefixnas' if main is SEARCH else 'peml'} {command}`"
    text = (ROOT / "docs" / "command-line.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|") and name in line]
    assert rows, f"the page does not tell what {name} prints"
    return set(re.findall(r"`([\w]+)`", "".join(row.split("|")[2] for row in rows)))


@dataclass(frozen=True)
class Asked:
    """What a command has printed."""

    document: Any
    err: str


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., Asked]:
    def ask(main: Main, *argv: str, code: int = 0) -> Asked:
        capsys.readouterr()
        assert main([*argv, "--json"]) == code
        out, err = capsys.readouterr()
        assert out.count("\n") == 1
        document, keys = json.loads(out), documented(main, argv[0])
        if argv[0] in ("search", "train"):
            keys |= documented(main, f"{argv[0]} --dry-run")
        assert set(document) <= keys
        return Asked(document, err)

    return ask


@pytest.fixture(scope="module")
def run(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of four steps, whose document is kept beside it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    argv = ["search", "--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    assert SEARCH([*argv, "--baseline", "none", "--no-report", "--out", str(run)]) == 0
    return run


def test_a_run_without_a_report_draws_nothing(run: Path) -> None:
    assert (run / "result.json").is_file()
    assert not (run / "report.html").exists() and not (run / "plots").exists()


def test_a_finished_run_is_one_document(run: Path, ask: Callable[..., Asked]) -> None:
    resumed = ask(SEARCH, "search", "--resume", "--no-report", "--out", str(run)).document
    shown = ask(SEARCH, "show", str(run)).document
    assert resumed == shown
    result = json.loads((run / "result.json").read_text())
    for key in ("columns", "architecture", "steps", "seed", "trained_parameters"):
        assert shown[key] == result[key]
    assert shown["finished"] and shown["run"] == str(run)
    assert shown["probabilities"].keys() <= shown["architecture"].keys()


def test_a_search_as_json_prints_nothing_else(
    bench: Path, tmp_path: Path, ask: Callable[..., Asked]
) -> None:
    argv = ["search", "--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    argv += ["--baseline", "none", "--no-report"]
    asked = ask(SEARCH, *argv, "--out", str(tmp_path / "loud"))
    assert "search 1/2" in asked.err
    asked = ask(SEARCH, *argv, "--out", str(tmp_path / "quiet"), "--quiet")
    assert all(line.startswith("warning: ") for line in asked.err.splitlines())
    planned = ask(SEARCH, *argv, "--dry-run").document
    assert planned["config"]["steps"] == 4 and "mood" in planned["preview"][0]


def test_lists_are_documents(bench: Path, ask: Callable[..., Asked]) -> None:
    spaces = {row["space"]: row for row in ask(SEARCH, "spaces").document["spaces"]}
    shown = ask(SEARCH, "spaces", "default").document
    assert spaces["default"]["architectures"] == shown["architectures"] == 4**6 * 3**6
    assert len(shown["decisions"]) == spaces["default"]["decisions"]
    names = [row["strategy"] for row in ask(SEARCH, "strategies").document["strategies"]]
    assert "darts" in names
    keys = ask(SEARCH, "strategies", "darts").document["keys"]
    assert {key["key"]: key["default"] for key in keys}["relaxation"] == "softmax"
    methods = {row["method"]: row for row in ask(PEML, "methods").document["methods"]}
    lora = ask(PEML, "methods", "lora").document
    assert methods["lora"].items() <= lora.items() and lora["merges"] == "always"
    counted = ask(PEML, "methods", "--model", str(bench / "llama"))
    refused = {m["method"]: m for m in counted.document["methods"] if m["weights"] is None}
    assert [*refused] == ["unipelt"] and "encoder" in refused["unipelt"]["refused"]
    assert [*methods] == [method["method"] for method in counted.document["methods"]]
    (task,) = ask(PEML, "tasks", str(bench / "mood"), "--show", "2").document["tasks"]
    assert task["choices"] == ["yes", "no"] and len(task["examples"]) == 2
    assert task["examples_by_split"]["validation"] == 6
    assert task["examples"][0]["writes"] in (" yes", " no")


def test_what_was_trained_answers_in_documents(
    bench: Path, run: Path, tmp_path: Path, ask: Callable[..., Asked]
) -> None:
    rows = ask(PEML, "predict", str(run), str(bench / "mood" / "validation.jsonl")).document["rows"]
    assert len(rows) == 6 and {row["prediction"] for row in rows} <= {"yes", "no"}
    written = ask(PEML, "generate", str(run), "film", "plot", "--max-new-tokens", "2").document
    assert [row["prompt"] for row in written["rows"]] == ["film", "plot"]
    out = tmp_path / "out"
    assert ask(PEML, "export", str(run), str(out)).document == {"out": str(out), "format": "peml"}
    assert ask(SEARCH, "report", str(run)).document == {"report": str(run / "report.html")}
    assert ask(SEARCH, "diagnose", str(run)).document == json.loads(
        (run / "diagnosis.json").read_text()
    )
    found = ask(SEARCH, "stability", str(run)).document
    assert found["runs"][0]["run"] == "run" and found["stability"][0]["runs"] == 1


def test_plans_are_documents(tmp_path: Path, ask: Callable[..., Asked]) -> None:
    argv = ["compare", "--objective", "tabular", "--space", "tabular", "--strategies", "random"]
    argv += ["--seeds", "0", "--budget", "40", "--out", str(tmp_path / "out")]
    runs = ask(SEARCH, *argv, "--dry-run").document["runs"]
    assert {row["state"] for row in runs} == {"to run"}
    table = ask(PEML, "table", str(ROOT / "tables" / "table02.yaml"), "--dry-run").document
    assert table["total"]["runs"] == sum(row["runs"] for row in table["rows"])
    assert not (tmp_path / "out").exists()


def test_an_error_stays_one_line_on_standard_error(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for main, command in (
        (SEARCH, "search --space defualt"),
        (SEARCH, "show nowhere"),
        (SEARCH, f"show {run} --quiet --verbose"),
        (PEML, "methods lara"),
        (PEML, "evaluate nowhere"),
    ):
        capsys.readouterr()
        assert main([*command.split(), "--json"]) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("main", [SEARCH, PEML], ids=["prefixnas", "peml"])
def test_every_command_offers_the_flags(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    program = prefixnas.__main__ if main is SEARCH else peml.__main__
    for name, module in program.COMMANDS.items():
        assert import_module(module).HELP
        actions = ["start"] if name == "experiment" else []
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([name, *actions, "--help"])
        said = capsys.readouterr().out
        assert all(f"--{flag}" in said for flag in FLAGS), name


def test_what_json_has_no_word_for() -> None:
    parser = argparse.ArgumentParser()
    add_output(parser)
    assert Output.of(parser.parse_args(["--json"])) == Output(json=True)
    found = plain({1: Path("a"), "b": (float("nan"), 1.5), "c": Output(quiet=True)})
    assert found == {
        "1": "a",
        "b": [None, 1.5],
        "c": {"json": False, "quiet": True, "verbose": False},
    }
