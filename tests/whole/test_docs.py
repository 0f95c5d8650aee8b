"""The documentation is run: commands, Python, files that it shows, links, flags and keys.

The blocks of a page are run in order, in a folder of their own with tiny models and tasks under the
names that the pages use. A YAML or Python block whose first line is a comment with a file's name is
that file. A block below `<!-- not run: reason -->` is left out; how many may be is fixed here.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from peml.methods.method import METHODS
from peml.tables.file import read_table
from peml.tasks.load import load_task
from peml.tasks.spec import make_spec
from prefixnas.base.options import resolve
from prefixnas.base.plugins import load_plugin
from prefixnas.experiments.experiment import read_experiment
from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.run.objective import OBJECTIVES
from prefixnas.run.strategy import STRATEGIES
from prefixnas.space.loading import space_from_yaml
from prefixnas.space.ops import OPS
from tests import ROOT, forked
from tests.peml import tiny
from tests.whole.pages import PAGES, Block, blocks, options, table_rows

NOT_RUN: dict[str, int] = {"nni.md": 4}
"""How many blocks of a page may be marked as not run."""

SETUP = ("make", "python3 -m venv", "env/bin/pip install", ".venv/bin/pip install")

SETUP += ("optuna-dashboard", "pip install lm-eval", "lm_eval ", "python examples/harness.py")

SETUP += ("peml push",)

"""Commands that need a network, build an environment or serve; checked by other means."""

SMALL = ["--steps", "6", "--train-limit", "40", "--eval-limit", "6", "--max-length", "64"]
FEW = ["--budget", "4", "--seeds", "0", "--random-draws", "0", "--references", "none"]

FEW += ["--space", "mlp", "--strategies", "random:trials=2"]

"""A comparison of a single run: each is a process of its own. As shown, it is planned alone."""

LAUNCHERS = {
    "accelerate": "accelerate.commands.accelerate_cli",
    "torchrun": "torch.distributed.run",
}

COMMANDS = {"prefixnas": "prefixnas", "peml": "peml", **LAUNCHERS}
"""Per command the module that it is."""

REGISTRIES: list[Any] = [OPS, STRATEGIES, RELAXATIONS, OBJECTIVES]
ALL = [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models and tasks under the names that the pages use."""
    root = tmp_path_factory.mktemp("docs")
    for name, build in (("llama", tiny.llama), ("t5", tiny.t5), ("bert", tiny.bert)):
        lm = build()
        lm.model.float().save_pretrained(root / "models" / name)
        lm.tokenizer.model_input_names = ["input_ids", "attention_mask"]
        lm.tokenizer.save_pretrained(root / "models" / name)
    for task in ("sst2", "rte"):
        write_task(root / "data" / task, task)
    write_tickets(root)
    return root


def write_task(folder: Path, task: str) -> None:
    folder.mkdir(parents=True)
    for split, count in (("train", 20), ("validation", 8)):
        rows = [
            {"input": f"{task} {split} {i} : a film so {w} .", "choices": ["bad", "good"]}
            | {"label": int(w == "good")}
            for i in range(count)
            for w in ("good", "bad")
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)


def write_tickets(root: Path) -> None:
    """Write the tables of tickets that pages speak of, known and new ones."""
    teams = ["billing", "technical", "sales"] * 10
    rows = [f"{n},a film so {'good' if n % 2 else 'bad'} .,{team}" for n, team in enumerate(teams)]
    (root / "tickets.csv").write_text("\n".join(["id,input,label", *rows]) + "\n")
    new = [row.rpartition(",")[0] for row in rows[:4]]
    (root / "new.csv").write_text("\n".join(["id,input", *new]) + "\n")


@pytest.fixture
def place(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run a page in."""
    for name in ("models", "data"):
        shutil.copytree(models / name, tmp_path / name)
    for name in ("tickets.csv", "new.csv"):
        shutil.copy(models / name, tmp_path)
    for name in ("examples", "tables"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@contextmanager
def as_if_alone(place: Path) -> Iterator[None]:
    """Forget afterwards what was registered and imported, as a process of its own would."""
    before = [dict(registry._registered) for registry in REGISTRIES]
    try:
        yield
    finally:
        for registry, registered in zip(REGISTRIES, before, strict=True):
            registry._registered = registered
        for name, module in list(sys.modules.items()):
            if str(place) in str(getattr(module, "__file__", None)):
                del sys.modules[name]


def check_setup(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), f"no such target in the Makefile: {command}"
    elif "install" in words and words[-1] != "lm-eval":
        extra = re.fullmatch(r"\.(?:\[(\w+)\])?", words[-1])
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert extra, command
        assert extra[1] is None or extra[1] in project["optional-dependencies"], command


def run_command(command: str) -> None:
    """Run a command as a process of its own, shortened."""
    name, *arguments = shlex.split(command)
    assert name in COMMANDS, f"a command that nothing checks: {command}"
    if arguments[0] == "compare" and "--resume" not in arguments:
        succeed(command, name, [*arguments, "--dry-run"])
        arguments += [*FEW, *SMALL[2:]]
    if arguments[0] in ("transfer", "tune"):
        arguments.append("--dry-run")
    searches = arguments[0] in ("search", "train") and "--resume" not in arguments
    if searches or name in LAUNCHERS:
        arguments += SMALL[:2] if "--objective" in arguments else SMALL
    succeed(command, name, arguments)


def succeed(command: str, name: str, arguments: Sequence[str]) -> None:
    done = forked.run("-m", COMMANDS[name], *arguments)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def run_block(block: Block, place: Path) -> None:
    if block.file is not None and block.language in ("python", "yaml"):
        path = place / block.file
        assert not path.exists(), f"{block}: {block.file} is there already"
        path.write_text(block.text)
    if block.language == "bash":
        for command in block.text.splitlines():
            if command.startswith(SETUP):
                check_setup(command)
            elif command.startswith("mv "):
                shutil.move(*command.split()[1:])
            else:
                run_command(command)
    elif block.language == "python":
        code = compile(block.text, str(block), "exec")
        if block.file is None or block.file.startswith("test_"):
            with as_if_alone(place):
                exec(code, {"__name__": "docs"})
    elif block.language == "yaml":
        check_yaml(block, place)
    elif block.language == "json":
        check_examples(block, place)
    elif block.language == "csv":
        assert block.text.splitlines()[0] == (place / "tickets.csv").read_text().splitlines()[0]
        (place / f"lines-{block.line}.csv").write_text(block.text)
        load_task(place / f"lines-{block.line}.csv")
    elif block.language == "toml":
        check_entry_points(block)
    else:
        assert block.language == "", f"{block}: a block of {block.language} that nothing checks"


def check_yaml(block: Block, place: Path) -> None:
    """A YAML block is a configuration, a space or a task."""
    data = yaml.safe_load(block.text)
    if "rows" in data:
        assert block.file is not None, f"{block}: no command reads it"
        read_table(place / block.file)
    elif "hyperparameters" in data:
        read_experiment([(str(block), data)], str(block))
    elif "strategies" in data:
        assert block.file is not None, f"{block}: no command reads it"
    elif {"model", "strategy", "steps"} & set(data):
        resolve(options(str(data.get("strategy", "darts"))), [(str(block), data)])
    elif {"stack", "seq", "sum", "choice"} & set(data):
        with as_if_alone(place):
            for plugin in [*place.glob("*.py"), *examples_without_lm_eval(place)]:
                load_plugin(str(plugin))
            space_from_yaml(block.text, str(block))
    else:
        make_spec(data)
        if block.file is not None:
            load_task(block.file)


def examples_without_lm_eval(place: Path) -> list[Path]:
    """Return what one may import here: an example needs lm-eval."""
    return [path for path in place.glob("examples/*.py") if "lm_eval" not in path.read_text()]


def check_examples(block: Block, place: Path) -> None:
    """A JSON block holds examples of a task."""
    folder = place / "data" / f"lines-{block.line}"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(block.text)
    load_task(folder)


def check_entry_points(block: Block) -> None:
    groups = tomllib.loads(block.text)["project"]["entry-points"]
    known = {each.group for each in [*REGISTRIES, METHODS]} | {"prefixnas.spaces"}
    assert set(groups) == known, block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_works(page: Path, place: Path) -> None:
    mine = [block for block in blocks(page) if block.not_run is None]
    for block in mine:
        run_block(block, place)
    check_events(place)


def check_events(place: Path) -> None:
    """Every key of every event that the runs of a page wrote is in the table of events."""
    rows = dict(table_rows(ROOT / "docs" / "runs.md", "event"))
    for path in place.glob("runs/*/metrics.jsonl"):
        for line in path.read_text().splitlines():
            event = json.loads(line)
            keys = set(event) - {"event", "time"}
            assert keys <= set(re.findall(r"`(\w+)`", rows[event["event"]][0])), event


def test_few_blocks_are_not_run() -> None:
    counted: dict[str, int] = {}
    for block in ALL:
        if block.not_run is not None:
            counted[block.page.name] = counted.get(block.page.name, 0) + 1
    assert counted == NOT_RUN


def test_the_readme_shows_the_examples() -> None:
    """The README's custom operation and space are those of examples/, without docstrings."""
    readme = blocks(ROOT / "README.md")
    shown = next(block.text for block in readme if "@register_op" in block.text)
    kept = (ROOT / "examples" / "custom_operation.py").read_text()
    assert code_of(shown) == code_of(kept)
    space = next(block.text for block in readme if block.language == "yaml")
    kept = (ROOT / "examples" / "custom_space.yaml").read_text()
    assert yaml.safe_load(space) == yaml.safe_load(kept)


@pytest.mark.parametrize(("file", "lines"), [("hill_climber.py", 40), ("shrinking.py", 60)])
def test_a_strategy_of_ones_own_is_that_of_the_examples(file: str, lines: int) -> None:
    pages = blocks(ROOT / "docs" / "extending.md")
    shown = next(block.text for block in pages if block.file == file)
    kept = (ROOT / "examples" / file).read_text()
    assert code_of(shown) == code_of(kept)
    assert len(kept.splitlines()) < lines


def code_of(source: str) -> list[str]:
    """Return the imports from this project and the definitions, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, ast.ClassDef) or "prefixnas" in (getattr(node, "module", None) or "")
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
