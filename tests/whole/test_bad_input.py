"""A mistake gives one clear line, exit code 2, and leaves everything as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import peml.__main__
import prefixnas.__main__
from tests.workbench import SMALL, digest, write_lines

FILES = {
    "syntax.yaml": "name: x\nseq: [linear, {choice:\n",
    "list.yaml": "- a\n- b\n",
    "nothing.yaml": "",
    "key.yaml": "name: x\nstack: {layers: 2, cell: [linear], lyaers: 3}\n",
    "root_key.yaml": "name: x\nseq: [linear]\nsaq: 3\n",
    "no_options.yaml": "name: x\nseq: [{choice: {key: a, options: []}}]\n",
    "no_options_either.yaml": "name: x\nseq: [{choice: {key: a, options: }}]\n",
    "operation.yaml": "name: x\nseq: [{choice: {key: a, options: [rellu, tanh]}}]\n",
    "parameter.yaml": "name: x\nseq: [{choice: {key: a, options: [{dropout: 3}, tanh]}}]\n",
    "parameter_name.yaml": "name: x\nseq: [{choice: {key: a, options: [{linear: {b: 1}}]}}]\n",
    "layers.yaml": "name: x\nstack: {layers: 0, cell: [linear]}\n",
    "decided_by.yaml": "name: x\nseq: [{choice: {key: a, options: [tanh], decided_by: hand}}]\n",
    "config_key.yaml": "lerning_rate: 0.1\n",
    "config_twice.yaml": "steps: 4\nsteps: 5\n",
    "config_text.yaml": "steps: many\n",
    "config_fraction.yaml": "steps: 2.5\n",
    "config_bool.yaml": "steps: true\n",
    "config_none.yaml": "steps: null\n",
    "config_strategy.yaml": "strategy: 3\n",
    "config_plugin.yaml": "plugin: [3]\n",
    "config_mapping.yaml": "tasks: {a: b}\n",
    "config_switch.yaml": "gradient_checkpointing: 7\n",
    "config_former.yaml": "baseline: true\n",
    "config_both.yaml": "lora: dora\nmethod: dora\n",
    "config_no_tasks.yaml": "tasks: []\n",
    "config_darts.yaml": "strategy: darts\n",
    "task_key.yaml": "source: mood\nmetirc: accuracy\n",
    "task_choices.yaml": "source: mood\nchoices: []\n",
    "task_metric.yaml": "source: mood\nmetrics: acuracy\n",
    "task_gamma.yaml": "source: mood\ngamma: -1\n",
    "task_fields.yaml": "source: mood\ntemplate: '{inptu} :'\n",
    "task_twice.yaml": "source: mood\nname: one\nname: two\n",
    "task_mood.yaml": "source: order\nname: mood\n",
    "broken_plugin.py": "import no_such_module\n",
    "file": "",
}
ROW = {"input": "film good", "choices": ["yes", "no"], "label": 0}


@pytest.fixture(scope="module")
def place(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with mistakes in it, and the run `earlier`, which must stay as it is."""
    folder = tmp_path_factory.mktemp("mistakes")
    for entry in bench.iterdir():
        (folder / entry.name).symlink_to(entry)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "binary.yaml").write_bytes(b"\xff\xfe name")
    write_lines(folder / "empty/train.jsonl", [ROW, ROW])
    write_lines(folder / "empty/validation.jsonl", [])
    write_lines(folder / "unvalidated/train.jsonl", [ROW, ROW])
    write_lines(folder / "outside/train.jsonl", [ROW, {**ROW, "label": 5}])
    write_lines(folder / "outside/validation.jsonl", [ROW])
    write_lines(folder / "damaged/train.jsonl", [ROW, ["a list"]])
    write_lines(folder / "damaged/validation.jsonl", [ROW])
    before = Path.cwd()
    os.chdir(folder)
    argv = ["search", "--model", "llama", "--tasks", "mood", *SMALL, "--out", "earlier"]
    assert prefixnas.__main__.main(argv) == 0
    yield folder
    os.chdir(before)


SEARCH = "search --model llama --tasks mood --out new "
CASES: list[tuple[str, list[str]]] = [
    # names
    (SEARCH + "--space defualt", ["space 'defualt'", "'default'"]),
    (SEARCH + "--space nowhere.yaml", ["nowhere.yaml: no such file"]),
    (SEARCH + "--strategy dart", ["strategy 'dart'", "'darts'"]),
    (SEARCH + "--objective language-modle", ["objective 'language-modle'", "'language-model'"]),
    (SEARCH + "--relaxation softmx", ["relaxation 'softmx'", "'softmax'"]),
    (SEARCH + "--space operation.yaml", ["operation.yaml", "operation 'rellu'", "'relu'"]),
    (SEARCH + "--model ./lama", ["model folder './lama'"]),
    (SEARCH + "--model mood", ["'mood'", "config.json"]),
    (SEARCH + "--model embedded:lama", ["embedded model 'lama'", "'llama'"]),
    (SEARCH + "--tasks moood", ["'moood'", "'mood'"]),
    (SEARCH + "--tasks embedded:sentimant", ["'sentimant'", "'sentiment'"]),
    (SEARCH + "--plugin nowhere.py", ["nowhere.py", "no such file"]),
    (SEARCH + "--plugin broken_plugin.py", ["broken_plugin.py", "no_such_module"]),
    (SEARCH + "--lora-targets q_prj", ["'q_prj'", "'q_proj'"]),
    (SEARCH + "--prefix-where encoder", ["prefix_where", "'llama'", "decoder"]),
    (SEARCH + "--set activatoin=tanh", ["decision 'activatoin'"]),
    (SEARCH + "--set activation=tan", ["option 'tan'", "'tanh'"]),
    (SEARCH + "--set activation", ["'set'", "DECISION=OPTION"]),
    # files
    (SEARCH + "--space syntax.yaml", ["syntax.yaml", "line 3", "YAML"]),
    (SEARCH + "--space list.yaml", ["list.yaml", "mapping"]),
    (SEARCH + "--space nothing.yaml", ["nothing.yaml", "mapping"]),
    (SEARCH + "--space binary.yaml", ["binary.yaml", "UTF-8"]),
    (SEARCH + "--space key.yaml", ["key.yaml", "'lyaers'", "'layers'"]),
    (SEARCH + "--space root_key.yaml", ["root_key.yaml", "'saq'", "'seq'"]),
    (SEARCH + "--space no_options.yaml", ["no_options.yaml", "choice 'a'", "no options"]),
    (SEARCH + "--space no_options_either.yaml", ["choice 'a'", "no options"]),
    (SEARCH + "--space layers.yaml", ["layers.yaml", "at least 1"]),
    (SEARCH + "--space decided_by.yaml", ["decided_by.yaml", "'hand'", "alpha"]),
    (SEARCH + "--space parameter.yaml", ["operation 'dropout'", "between 0 and 1"]),
    (SEARCH + "--space parameter_name.yaml", ["operation 'linear'", "'b'"]),
    (SEARCH + "--space mlp", ["'mlp'", "nothing to search"]),
    (SEARCH + "--config nowhere.yaml", ["nowhere.yaml: no such file"]),
    (SEARCH + "--config mood", ["mood: cannot be read"]),
    (SEARCH + "--config syntax.yaml", ["syntax.yaml", "line 3"]),
    (SEARCH + "--config list.yaml", ["list.yaml", "mapping"]),
    (SEARCH + "--config config_key.yaml", ["config_key.yaml", "'lerning_rate'", "'learning_rate'"]),
    (SEARCH + "--config config_twice.yaml", ["config_twice.yaml", "'steps'", "twice"]),
    (SEARCH + "--config config_text.yaml", ["'steps'", "whole number", "'many'"]),
    (SEARCH + "--config config_fraction.yaml", ["'steps'", "whole number", "2.5"]),
    (SEARCH + "--config config_bool.yaml", ["'steps'", "whole number", "True"]),
    (SEARCH + "--config config_none.yaml", ["'steps'", "whole number", "None"]),
    (SEARCH + "--config config_strategy.yaml", ["'strategy'", "name", "3"]),
    (SEARCH + "--config config_plugin.yaml", ["'plugin'", "list of texts"]),
    (SEARCH + "--config config_switch.yaml", ["'gradient_checkpointing'", "true or false"]),
    (SEARCH + "--config config_former.yaml", ["'baseline'", "True", "both, lora, none"]),
    (SEARCH + "--baseline alone", ["--baseline", "'alone'", "both, lora, none"]),
    ("search --model llama --out new --config config_mapping.yaml", ["'tasks'", "list"]),
    ("search --model llama --out new --config config_no_tasks.yaml", ["'tasks'", "at least one"]),
    # tasks
    (SEARCH + "--tasks task_key.yaml", ["task_key.yaml, line 2", "'metirc'", "'metrics'"]),
    (SEARCH + "--tasks syntax.yaml", ["syntax.yaml", "line 3", "YAML"]),
    (SEARCH + "--tasks task_twice.yaml", ["task_twice.yaml", "line 3", "'name' occurs twice"]),
    (SEARCH + "--tasks task_choices.yaml", ["task_choices.yaml", "'choices'", "two"]),
    (SEARCH + "--tasks task_metric.yaml", ["'acuracy'", "'accuracy'"]),
    (SEARCH + "--tasks task_gamma.yaml", ["'gamma'", "above 0", "-1"]),
    (SEARCH + "--tasks task_fields.yaml", ["train.jsonl, line 1", "'inptu'", "task_fields.yaml"]),
    (SEARCH + "--tasks outside", ["train.jsonl, line 2", "label 5", "0: yes, 1: no"]),
    (SEARCH + "--tasks empty", ["empty/validation.jsonl", "empty"]),
    (SEARCH + "--tasks unvalidated", ["unvalidated", "no validation split"]),
    (SEARCH + "--tasks damaged", ["train.jsonl, line 2", "object"]),
    (SEARCH + "--tasks mood mood", ["two tasks", "'mood'"]),
    (SEARCH + "--tasks mood task_mood.yaml", ["two tasks", "'mood'"]),
    # values
    (SEARCH + "--steps 0", ["'steps'", "at least 1", "0"]),
    (SEARCH + "--learning-rate 1e30", ["'learning_rate'", "at most 10", "1e+30"]),
    (SEARCH + "--steps " + "9" * 400, ["'steps'", "at most 100000000"]),
    (SEARCH + "--steps " + "9" * 5000, ["--steps", "whole number"]),
    (SEARCH + "--temperature 1e-300", ["'temperature'", "at least 0.1"]),
    (SEARCH + "--prefix-length 100000000", ["'prefix_length'", "at most 10000"]),
    (SEARCH + "--optimizer admw", ["--optimizer", "'admw'", "did you mean 'adamw'?"]),
    (SEARCH + "--optimizer-options betas=[2]", ["'optimizer_options'", "adamw", "betas=[2]"]),
    (SEARCH + "--schedule cosin", ["--schedule", "'cosin'", "did you mean 'cosine'?"]),
    (SEARCH + "--schedule-options power=2", ["'schedule_options'", "'power'"]),
    (SEARCH + "--level second-order --optimizer sgd", ["'optimizer'", "second-order", "sgd"]),
    (SEARCH + "--steps 1.5", ["--steps", "whole number", "'1.5'"]),
    (SEARCH + "--steps 1", ["search steps", "search_fraction"]),
    (SEARCH + "--search-fraction 1.5", ["'search_fraction'", "below 1", "1.5"]),
    (SEARCH + "--search-fraction nan", ["--search-fraction", "finite"]),
    (SEARCH + "--checkpoint-every 0", ["'checkpoint_every'", "at least 1"]),
    (SEARCH + "--warmup -1", ["'warmup'", "at least 0"]),
    (SEARCH + "--decay 2", ["'decay'", "at most 1"]),
    (SEARCH + "--seed -1", ["'seed'", "at least 0"]),
    (SEARCH + "--clip 0", ["'clip'", "above 0"]),
    (SEARCH + "--batch-size -1", ["'batch_size'", "at least 1"]),
    (SEARCH + "--gamma -0.1", ["'gamma'", "above 0"]),
    (SEARCH + "--prefix-length -3", ["'prefix_length'", "at least 1"]),
    (SEARCH + "--prefix-width 0", ["'prefix_width'", "at least 1"]),
    (SEARCH + "--lora-rank -8", ["'lora_rank'", "at least 1"]),
    (SEARCH + "--lora-dropout 1", ["'lora_dropout'", "below 1"]),
    (SEARCH + "--learning-rate -1", ["'learning_rate'", "above 0"]),
    (SEARCH + "--learning-rate fast", ["--learning-rate", "a number", "'fast'"]),
    (SEARCH + "--eval-limit 0", ["'eval_limit'", "at least 1"]),
    (SEARCH + "--max-length 2", ["'mood'", "max_length"]),
    (SEARCH + "--alpha-warmup 2", ["'alpha_warmup'", "at most 1"]),
    (SEARCH + "--prune-below 1", ["'prune_below'", "below 1"]),
    (SEARCH + "--log-every 0", ["'log_every'", "at least 1"]),
    (SEARCH + "--method lorra", ["--method", "'lorra'", "'lora'"]),
    (SEARCH + "--lora lorra", ["--method", "'lorra'", "'lora'"]),
    (SEARCH + "--config config_both.yaml", ["'lora'", "'method'", "leave one"]),
    (SEARCH + "--space none", ["'none'", "'darts'", "'fixed'"]),
    (SEARCH + "--strategy fixed --space none --arch earlier", ["'arch'", "'none'"]),
    (SEARCH + "--dtype int8", ["--dtype", "'int8'"]),
    (SEARCH + "--prefix-where top", ["--prefix-where", "'encoder'", "'top'"]),
    (SEARCH + "--strategy random --trials 900", ["'trials'", "900"]),
    (SEARCH + "--strategy tpe --trials 0", ["'trials'", "at least 1"]),
    (SEARCH + "--strategy evolution --population 2 --sample 3", ["'sample'", "population of 2"]),
    (SEARCH + "--strategy surrogate --acquisition eii", ["--acquisition", "'eii'", "'ei'"]),
    (SEARCH + "--strategy tpe --weights oneshot", ["--weights", "'oneshot'", "'one-shot'"]),
    (
        SEARCH + "--strategy tpe --weights one-shot --space preembedd",
        ["'weights'", "'preembedd'", "one architecture"],
    ),
    (SEARCH + "--strategy fixed --arch nowhere", ["nowhere", "no such architecture"]),
    (SEARCH + "--strategy fixed --arch binary.yaml", ["binary.yaml", "UTF-8"]),
    (SEARCH + "--strategy fixed --arch earlier --space mlp", ["'mlp'", "layer0/activation"]),
    (SEARCH + "--strategy fixed --arch earlier --set activation=tanh", ["'arch'", "'set'"]),
    # flags and commands
    (SEARCH + "--lerning-rate 1", ["'--lerning-rate'", "'--learning-rate'"]),
    (SEARCH + "--strategy random --relaxation ste", ["'--relaxation'"]),
    (SEARCH + "extra", ["'extra'"]),
    ("search --model", ["--model", "one argument"]),
    ("", ["COMMAND"]),
    ("serch", ["'serch'", "'search'"]),
    ("--fast search", ["'--fast'"]),
    ("spaces defualt", ["'defualt'", "'default'"]),
    ("spaces default --width 0", ["--width", "at least 1"]),
    ("spaces default extra", ["'extra'"]),
    ("strategies dart", ["'dart'", "'darts'"]),
    ("show nowhere", ["nowhere", "no such run"]),
    ("show mood", ["mood", "not a run"]),
    ("report nowhere", ["nowhere", "no such run"]),
    ("report file", ["file", "no such run"]),
    ("report", ["run"]),
    ("stability", ["run"]),
    ("stability nowhere", ["nowhere", "no such run"]),
    ("stability mood", ["mood", "not a run"]),
    ("stability earlier earlier/.", ["earlier", "twice"]),
    ("stability earlier --by relaxatoin", ["--by", "'relaxatoin'", "'relaxation'"]),
    ("diagnose nowhere", ["nowhere", "no such run"]),
    ("diagnose mood", ["mood", "not a run"]),
    ("diagnose earlier --batches 1", ["--batches", "at least 2"]),
    ("diagnose earlier --replay 0", ["--replay", "at least 1"]),
    ("transfer --out new", ["two groups"]),
    ("transfer config_text.yaml list.yaml --out new", ["list.yaml", "mapping"]),
    ("transfer config_text.yaml config_bool.yaml --out new", ["'steps'", "whole number"]),
    # run folders
    (SEARCH + "--out earlier", ["earlier", "--resume"]),
    (SEARCH + "--out mood", ["mood", "not empty"]),
    (SEARCH + "--out file", ["file", "not a folder"]),
    (SEARCH + "--out file/new", ["file/new", "cannot be written"]),
    (SEARCH + "--out /proc/new", ["/proc/new", "cannot be written"]),
    ("search --resume --out earlier --steps 9", ["earlier", "'steps' was 4", "now 9"]),
    ("search --resume --out earlier --strategy random", ["earlier", "'strategy'", "'random'"]),
    ("search --resume --out earlier --relaxation ste", ["earlier", "'relaxation'"]),
    ("search --resume --out nowhere", ["nowhere", "no run"]),
    ("search --resume --out nowhere --checkpoint-every 3", ["nowhere", "no run"]),
    (SEARCH + "--resume --out mood", ["mood", "no run to resume"]),
    ("search --resume", ["--resume", "--out"]),
    # peml
    ("peml", ["COMMAND"]),
    ("peml trian", ["'trian'", "'train'"]),
    ("peml train --strategy darts", ["'--strategy'"]),
    ("peml train --config config_darts.yaml", ["config_darts.yaml", "'strategy'", "'fixed'"]),
    ("peml train --model llama --tasks mood --arch nowhere --out new", ["nowhere"]),
    ("peml evaluate nowhere", ["'nowhere'"]),
    ("peml evaluate mood", ["mood", "no adapter"]),
    ("peml evaluate earlier --split test", ["no test split", "validation"]),
    ("peml evaluate earlier --tasks outside", ["train.jsonl, line 2", "label 5"]),
    ("peml evaluate earlier --eval-limit 0", ["--eval-limit", "at least 1"]),
    ("peml evaluate earlier --max-length 2", ["'mood'", "max"]),
    ("peml export earlier earlier", ["earlier", "not empty"]),
    ("peml export earlier new --format pfet", ["'pfet'", "'peft'"]),
    ("peml export mood new", ["mood", "no adapter"]),
    ("peml export earlier file/new", ["file/new"]),
    ("peml export earlier /proc/new", ["/proc/new"]),
    ("peml export earlier", ["OUT"]),
    ("peml push mood me/model", ["mood", "no run with an adapter"]),
    ("peml push earlier", ["OWNER/NAME"]),
    ("peml generate earlier film --max-new-tokens 0", ["max_new_tokens", "at least 1"]),
    ("peml generate nowhere film", ["'nowhere'"]),
]


def command(line: str) -> tuple[Callable[[list[str]], int], list[str]]:
    words = line.split()
    if words[:1] == ["peml"]:
        return peml.__main__.main, words[1:]
    return prefixnas.__main__.main, words


@pytest.mark.parametrize(("line", "said"), CASES, ids=[line or "no command" for line, _ in CASES])
def test_one_line_and_exit_code_2(
    line: str, said: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest(place)
    main, argv = command(line)
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    for words in said:
        assert words in err
    assert "Traceback" not in err and not out
    assert digest(place) == before


@pytest.mark.parametrize(
    ("module", "argv", "said"),
    [
        ("prefixnas", [*SEARCH.split(), "--model", "lama"], "'lama'"),
        ("peml", ["train", *SEARCH.split()[1:], "--steps", "0"], "'steps'"),
    ],
)
def test_from_a_shell(module: str, argv: list[str], said: str, place: Path) -> None:
    before = digest(place)
    done = subprocess.run(
        [sys.executable, "-m", module, *argv],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert said in done.stderr and not done.stdout
    assert digest(place) == before


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("search --dry-run --config f.yaml", "WRONG"),
        ("compare --dry-run --config f.yaml", "WRONG"),
        ("transfer --dry-run f.yaml g.yaml", "WRONG"),
        (
            "tune --dry-run f.yaml",
            "base: {WRONG}\nhyperparameters: {seed: {int: [0, 3]}}\ntrials: 2",
        ),
    ],
)
@pytest.mark.parametrize(
    ("wrong", "said"),
    [("space: sapce", "unknown space 'sapce'"), ("prefix_length: -1", "must be at least 1")],
)
def test_what_a_file_names_wrongly_is_said_with_the_file_and_the_key(
    command: str,
    keys: str,
    wrong: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text(keys.replace("WRONG", wrong))
    Path("g.yaml").write_text("space: default\n")
    assert prefixnas.__main__.main([*command.split(), "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: f.yaml: ") and said in err and err.count("\n") == 1
    assert f"key '{wrong.partition(':')[0]}'" in err and not Path("out").exists()
