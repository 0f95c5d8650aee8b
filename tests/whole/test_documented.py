"""What there is, is documented: flags, keys, defaults, names, rooms; what is named, is there."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import peml.__main__
import prefixnas.__main__
from peml.adapters.export import FORMATS
from peml.batches.sampler import MODES
from peml.methods.method import METHODS
from peml.prefix.starts import STARTS
from peml.tables.file import TableFile
from peml.tasks.metrics import METRICS
from peml.tasks.spec import KEYS
from prefixnas.base.options import default_of, fields_of, literals, types_of
from prefixnas.commands.experiment import ACTIONS
from prefixnas.experiments.experiment import ExperimentFile
from prefixnas.network.relaxations import RELAXATIONS
from prefixnas.run.strategy import STRATEGIES
from prefixnas.space.loading import load_space
from prefixnas.space.ops import OPS
from tests import ROOT
from tests.whole.pages import PAGES, options, table_rows

LAUNCHER_FLAGS = {"--multi", "--num", "--mixed", "--standalone", "--nproc-per-node"}
"""As far as the pattern of our own flags reaches: they have underscores."""


def test_every_flag_exists(capsys: pytest.CaptureFixture[str]) -> None:
    known = flags(capsys)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        plugins = set(re.findall(r"^    (\w+): \w+ = option\(", text, re.MULTILINE))
        own = {"--" + key.replace("_", "-") for key in plugins}
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))
        assert named <= known | own | LAUNCHER_FLAGS, f"{page.name}: {named - known - own}"


def flags(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return every flag that the help of some command names, or a script's source does."""
    helps = [["search", "--strategy", name] for name in STRATEGIES.names()]
    calls = [
        (prefixnas.__main__.main, arguments)
        for arguments in [
            *helps,
            ["spaces"],
            ["strategies"],
            ["compare"],
            ["stability"],
            ["diagnose"],
            ["transfer"],
            *(["experiment", action] for action in ACTIONS),
        ]
    ]
    calls += [(peml.__main__.main, [name]) for name in peml.__main__.COMMANDS]
    calls += [(peml.__main__.main, ["methods", name]) for name in METHODS.names()]
    calls += [(prefixnas.__main__.main, []), (peml.__main__.main, [])]
    capsys.readouterr()
    for main, arguments in calls:
        with pytest.raises(SystemExit):
            main([*arguments, "--help"])
    scripts = [path.read_text() for folder in ("benchmarks", "scripts") for path in py(folder)]
    text = capsys.readouterr().out + "\n".join(scripts)
    return set(re.findall(r"--[a-z][a-z-]*[a-z]", text))


def py(folder: str) -> list[Path]:
    return sorted((ROOT / folder).glob("*.py"))


def shown(value: object) -> str:
    """Write a default as docs/runs.md does."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "[]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def test_every_key_is_documented_with_its_default() -> None:
    keys = {
        (name, f"`{shown(default_of(entry))}`")
        for strategy in STRATEGIES.names()
        for name, entry in fields_of(options(strategy)).items()
    }
    table = {(name, cells[0]) for name, cells in table_rows(ROOT / "docs" / "runs.md", "key")}
    assert table == keys


def test_every_value_of_a_key_is_documented() -> None:
    meanings: dict[str, str] = {}
    for name, cells in table_rows(ROOT / "docs" / "runs.md", "key"):
        meanings[name] = meanings.get(name, "") + cells[1]
    for strategy in STRATEGIES.names():
        for name, kind in types_of(options(strategy)).items():
            values = [item for item in literals(kind) if item is not None]
            assert all(f"`{value}`" in meanings[name] for value in values), name


def test_every_key_of_a_task_is_documented() -> None:
    assert [name for name, _ in table_rows(ROOT / "docs" / "tasks.md", "key")] == list(KEYS)


def shipped(registry: Any) -> list[str]:
    """Names that come with the project: other tests of this process register some, too."""
    own = ("prefixnas.", "peml.", "torch.")
    return [n for n in registry.names() if registry.get(n).__module__.startswith(own)]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("spaces.md", lambda: [p.stem for p in (ROOT / "search_spaces").glob("*.yaml")]),
        ("spaces.md", lambda: shipped(OPS)),
        ("strategies.md", lambda: shipped(STRATEGIES)),
        ("strategies.md", lambda: shipped(RELAXATIONS)),
        ("tasks.md", lambda: METRICS),
        ("export.md", lambda: list(FORMATS)),
        ("peml.md", lambda: [*STARTS, *MODES]),
        ("methods.md", lambda: shipped(METHODS)),
    ],
)
def test_everything_that_is_shipped_is_documented(
    page: str, names: Callable[[], Sequence[str]]
) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for name in names():
        assert f"`{name}`" in text or f"## {name}\n" in text, f"{page} lacks {name}"


def test_the_number_of_activations_in_the_readme() -> None:
    space = load_space("default")
    combinations = 1
    for decision in space.decisions:
        combinations *= len(decision.options) if decision.decided_by == "alpha" else 1
    assert f"holds {combinations:,}\ncombinations" in (ROOT / "README.md").read_text()


def test_every_key_of_an_experiment_is_documented_with_its_default() -> None:
    keys = {
        (name, f"`{shown(default_of(entry)) if default_of(entry) != {} else '{}'}`")
        for name, entry in fields_of({"experiment": ExperimentFile}).items()
    }
    table = {(name, cells[0]) for name, cells in table_rows(ROOT / "docs/experiments.md", "key")}
    assert table == keys


def test_every_entry_of_a_table_is_documented() -> None:
    rows = [name for name, _ in table_rows(ROOT / "docs" / "tables.md", "entry")]
    named = {name for row in rows for name in re.findall(r"\w+", row)}
    assert named == set(fields_of({"table": TableFile}))


def test_the_picture_of_the_rooms_is_that_of_the_folders() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    upper, lower, *_ = text.partition("```")[2].partition("```")[0].split("\n\n")
    for package, picture in (("prefixnas", upper), ("peml", lower)):
        shown = set(re.findall(r"^  (\w+) ", picture, re.MULTILINE))
        folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert shown == folders


def test_the_files_and_names_of_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([a-z_/]+\.py)`", text))
    methods = re.findall(r"`([A-Z]\w+)\.(\w+)", text)
    functions = re.findall(r"\(`([a-z_]+)`\)", text)
    assert len(files) > 40 and len(methods) > 5 and functions
    for name in files:
        places = (ROOT, ROOT / "prefixnas", ROOT / "prefixnas" / "oneshot")
        assert any((place / name).is_file() for place in places), name
    source = "".join(path.read_text("utf-8") for path in (ROOT / "prefixnas").rglob("*.py"))
    for owner, name in methods:
        body = source.partition(f"class {owner}")[2].partition("\nclass ")[0]
        assert f"def {name}(" in body, f"{owner}.{name}"
    for name in functions:
        assert f"def {name}(" in source, name
