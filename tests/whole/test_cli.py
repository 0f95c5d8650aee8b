"""What the command line promises: flags and YAML, dry runs, run folders, plugins."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from peml.__main__ import main as peml
from peml.objective.config import LanguageModelConfig
from prefixnas.__main__ import main
from prefixnas.base.locks import alone
from prefixnas.base.options import LEAST, fields_of, is_list, literals, types_of
from prefixnas.launch.config import RunConfig, run_options
from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.run.evaluation import BASELINE, EQUAL_WEIGHTS
from prefixnas.run.strategy import STRATEGIES
from tests.pages import numbers_shown, strangers
from tests.workbench import SMALL, digest, events, python

pytestmark = pytest.mark.usefixtures("rendered")
HEAVY = ("torch", "transformers", "peft", "datasets", "accelerate", "matplotlib")


def dry_run(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["search", *argv, "--dry-run"]) == 0
    printed: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return printed


def values_of(kind: Any, limits: dict[str, float]) -> st.SearchStrategy[Any]:
    """Values that a key of this type may have."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if NoneType in get_args(kind):
        inner = st.one_of(*(values_of(part, limits) for part in parts))
        return st.one_of(st.none(), inner)
    if allowed := literals(kind):
        return st.sampled_from(allowed)
    if is_list(kind):
        return st.lists(values_of(parts[0], {}), min_size=1, max_size=3)
    low = limits.get("at least", limits.get("above", -1000))
    high = limits.get("at most", limits.get("below", 1000))
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(int(low), int(high) - ("below" in limits))
    if kind is float:
        low = LEAST if limits.get("above") == 0 else low
        return st.floats(low, high, exclude_min="above" in limits, exclude_max="below" in limits)
    assert kind is str
    # A text that looks like a number, a boolean or a date must stay a text.
    return st.sampled_from(["a", "3", "1e-3", "true", "2020-01-01", "with space", "ä: #"])


# Names and numbers that must fit to something else.
MEANINGFUL = {"strategy", "objective", "plugin", "space", "set", "steps", "search_fraction"}
MEANINGFUL |= {"report_to", "arch", "relaxation", "trials", "tasks", "method", "shots"}
MEANINGFUL |= {"epochs", "optimizer_options", "schedule_options", "order"}
MEANINGFUL |= {"level", "update", "selection", "entropy_schedule", "tune_steps"}


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    strategy = draw(st.sampled_from(["darts", "random", "fixed"]))
    options = {
        "run": run_options(LanguageModelConfig),
        "strategy": STRATEGIES.get(strategy),
        "objective": LanguageModelConfig,
    }
    kinds = types_of(options)
    chosen: dict[str, Any] = {"strategy": strategy, "steps": 100}
    chosen["tasks"] = draw(st.sampled_from([["embedded"], ["embedded:sentiment"]]))
    for name, entry in fields_of(options).items():
        if name not in MEANINGFUL and draw(st.booleans()):
            chosen[name] = draw(values_of(kinds[name], dict(entry.metadata.get("limits", {}))))
    if strategy == "darts":
        chosen["relaxation"] = draw(st.sampled_from(RELAXATIONS.names()))
    if draw(st.booleans()):
        chosen["search_fraction"] = draw(st.sampled_from([0.25, 0.5]))
    if draw(st.booleans()):
        chosen["method"] = draw(st.sampled_from(["lora", "dora"]))
    if strategy == "fixed" and draw(st.booleans()):
        chosen["set"] = ["activation=tanh", "layer1/dropout=dropout(0.3)"]
    return chosen


def as_flags(values: dict[str, Any]) -> list[str]:
    argv = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            argv.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, list):
            argv += [flag, *map(str, value)]
        else:
            argv.append(f"{flag}={'none' if value is None else value}")
    return argv


@settings(max_examples=60, deadline=None)
@given(values=configurations())
def test_flags_and_yaml_say_the_same(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(yaml.safe_dump(values))
        outputs = [printed(as_flags(values)), printed(["--config", str(file)])]
        file.write_text(outputs[0])
        outputs.append(printed(["--config", str(file)]))
    assert outputs[0] == outputs[1] == outputs[2]
    resolved = yaml.safe_load(outputs[0])
    assert {name: resolved[name] for name in values} == values


def printed(argv: Sequence[str]) -> str:
    out = StringIO()
    with redirect_stdout(out):
        assert main(["search", *argv, "--dry-run"]) == 0
    return out.getvalue()


def test_flags_win_over_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("steps: 30\nlora_rank: 4\nmax_length: 99\nbaseline: none\nlearning_rate: 1e-3")
    shown = dry_run(
        ["--config", str(file), "--steps", "40", "--max-length", "none", "--baseline", "lora"],
        capsys,
    )
    assert (shown["steps"], shown["lora_rank"], shown["max_length"]) == (40, 4, None)
    assert shown["baseline"] == "lora"
    assert shown["learning_rate"] == 1e-3


@pytest.mark.parametrize("line", ["method: dora", "lora: dora"])
def test_the_former_name_of_a_key_is_read(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(line)
    flags = "--" + line.replace(":", "")
    for argv in (["--config", str(file)], flags.split()):
        shown = dry_run(argv, capsys)
        assert shown["method"] == "dora" and "lora" not in shown
        assert shown["space"] == "default"


def test_training_a_method_takes_no_prefix_unless_asked_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {
        "": "default",
        "--method dora": "none",
        "--method dora --space mlp": "mlp",
        "--lora-rank 3": "default",
    }
    for flags, space in given.items():
        capsys.readouterr()
        assert peml(["train", *flags.split(), "--dry-run"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["space"] == space


def test_a_dry_run_resolves_everything_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = dry_run(["--out", "run"], capsys)
    assert digest(tmp_path) == {}
    assert shown["objective"] == "language-model"
    names = {f.name for c in (RunConfig, LanguageModelConfig) for f in dataclasses.fields(c)}
    assert names < set(shown)
    assert {"relaxation", "level"} < set(shown)
    assert {"torch", "transformers", "peft"} < set(shown["versions"])


def test_what_a_run_keeps_as_its_configuration_starts_the_same_run(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = yaml.safe_load((finished / "config.yaml").read_text())
    assert dry_run(["--config", str(finished / "config.yaml")], capsys) == kept


@pytest.mark.parametrize("module", ["prefixnas", "peml"])
def test_help_and_import_load_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = f"""
import sys, {module}
from {module}.__main__ import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code
print("HEAVY", sorted(set(sys.modules) & set({HEAVY})))
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert "COMMAND" in done.stdout


@pytest.mark.parametrize(("program", "run"), [("prefixnas", main), ("peml", peml)])
def test_the_version(
    program: str, run: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(["--version"])
    assert not end.value.code
    assert capsys.readouterr().out == f"{program} {version('prefixnas')}\n"


def test_search_help_shows_the_flags_of_strategy_and_objective(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def text(argv: list[str]) -> str:
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert not end.value.code
        return capsys.readouterr().out

    darts = text(["search", "--help"])
    for flag in ("--steps", "--relaxation", "--alpha-warmup", "--lora-rank", "--tasks", "--resume"):
        assert flag in darts
    other = text(["search", "--strategy", "random", "--help"])
    assert "--trials" in other and "--relaxation" not in other


def test_train_help_offers_no_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peml(["train", "--help"])
    text = capsys.readouterr().out
    assert "--arch" in text and "--strategy" not in text and "--objective" not in text


def test_spaces_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spaces"]) == 0
    listed = capsys.readouterr().out
    for name in ("default", "paper", "sensitivity", "mlp", "preembedd"):
        assert name in listed
    assert main(["spaces", "default", "--width", "10"]) == 0
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown)["name"] == "default"
    assert f"{4**6 * 3**6:,} architectures" in shown
    # six cells of a 10 x 10 linear layer with bias and a LayerNorm
    assert f"{6 * (110 + 20):,}" in shown.splitlines()[-1]


def test_strategies_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies"]) == 0
    listed = capsys.readouterr().out
    for name in STRATEGIES.names():
        assert name in listed
    assert main(["strategies", "darts"]) == 0
    shown = capsys.readouterr().out
    assert "--relaxation" in shown and "--level" in shown and "bilevel" in shown


@pytest.fixture(scope="module")
def finished(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    tasks = [str(bench / "mood"), str(bench / "order")]
    argv = ["--model", str(bench / "llama"), "--tasks", *tasks, *SMALL, "--eval-every", "1"]
    assert main(["search", *argv, "--out", str(run)]) == 0
    return run


def test_a_run_folder_holds_everything(finished: Path) -> None:
    for name in ("config.yaml", "metrics.jsonl", "architecture.yaml", "result.json", "report.html"):
        assert (finished / name).stat().st_size > 0
    assert (finished / "checkpoint/state.json").is_file()
    assert list((finished / "checkpoint").glob("*.safetensors"))
    assert (finished / "adapter/peml.json").is_file()
    pictures = list((finished / "plots").glob("*.png"))
    assert len(pictures) >= 3
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    page = (finished / "report.html").read_text()
    sources = re.findall(r"(?:src|href)=['\"]?([^'\" >]*)", page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert strangers(finished) == [] and numbers_shown(finished) > 100
    kinds = [event["event"] for event in events(finished)]
    assert kinds[0] == "start" and kinds[-1] == "end"
    steps = [event["phase"] for event in events(finished, "step")]
    assert steps == ["search"] * 2 + ["train"] * 2 + [BASELINE] * 4 + [EQUAL_WEIGHTS] * 4


def test_show_and_report(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # headings on one line
    assert main(["show", str(finished)]) == 0
    shown = capsys.readouterr().out
    for words in ("mood", "order", "trained child", "LoRA alone", "layer", "finished"):
        assert words in shown
    (finished / "report.html").unlink()
    assert main(["report", str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(finished / "report.html")
    assert (finished / "report.html").is_file()


def test_resuming_a_finished_run_changes_nothing(finished: Path) -> None:
    before = digest(finished)
    assert main(["search", "--resume", "--out", str(finished)]) == 0
    after = digest(finished)
    drawn = {name for name in before if name.startswith("plots")} | {"report.html", ".lock"}
    assert {k: v for k, v in before.items() if k not in drawn} == {
        k: v for k, v in after.items() if k not in drawn
    }


@pytest.mark.parametrize("command", ["search --resume --out", "report", "diagnose"])
def test_a_folder_in_which_another_process_runs_is_refused_in_one_line(
    command: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest(finished)
    with alone(finished, "runs"):
        assert main([*command.split(), str(finished)]) == 2
    said = capsys.readouterr().err
    assert f"{finished}: process {os.getpid()} runs there already" in said and said.count("\n") == 1
    changed = {name for name, now in digest(finished).items() if before.get(name) != now}
    assert changed <= {".lock"}


def test_the_folder_gets_a_name_of_its_own(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    for _ in range(2):
        assert (
            main(["search", *argv, "--baseline", "none", "--space", "mlp", "--strategy=fixed"]) == 0
        )
    out = capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["mlp-fixed-seed0", "mlp-fixed-seed0-2"]
    assert all(f"runs/{name}" in out for name in names)


def test_plain_lines_where_there_is_no_terminal(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    assert main(["search", *argv, "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert not {"\x1b", "\r"} & {*out, *err}
    assert "search 1/2" in err and "train 2/2" in err and "mood" in err
    assert re.search(r"train 2/2 .* left, \d+:\d\d in all", err)
    assert "trained child" in out and "2/2" not in out


def test_a_search_that_learns_nothing_says_so_under_its_table(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", str(bench / "llama"), "--tasks", str(bench / "mood"), *SMALL]
    assert main(["search", *argv, "--baseline", "none", "--out", str(tmp_path / "run")]) == 0
    said = "the alphas carry no more information than chance: over "
    *_, sentence, folder = capsys.readouterr().out.splitlines()
    assert sentence.startswith(said) and folder.startswith("run directory")
    assert main(["show", str(tmp_path / "run")]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
