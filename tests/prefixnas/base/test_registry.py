"""Names: decorators, entry points of installed packages, plugin files."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from prefixnas.base.errors import UserError
from prefixnas.base.plugins import load_plugin
from prefixnas.base.registry import Registry
from prefixnas.space.ops import OPS

GROUP = "prefixnas.test_things"


def things() -> Registry[object]:
    return Registry("thing", GROUP)


def install(
    folder: Path, package: str, points: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put a distribution with entry points on the path."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(folder))


def test_decorated_things_are_found() -> None:
    registry = things()
    item = object()
    assert registry.register("mine")(item) is item
    assert registry.get("mine") is item
    assert registry.names() == ["mine"]


def test_a_thing_knows_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "odds", {"random-number": "random:Random"}, monkeypatch)
    registry = things()
    mine = object()
    registry.register("mine")(mine)
    assert registry.name_of(mine) == "mine"
    assert registry.name_of(random.Random) == "random-number"
    assert registry.name_of(random.SystemRandom) is None


def test_an_unknown_name_lists_the_allowed_and_the_nearest() -> None:
    registry = things()
    registry.register("hill-climb")(object())
    with pytest.raises(UserError, match=r"file.yaml: unknown thing 'hil-climb'.*'hill-climb'"):
        registry.get("hil-climb", "file.yaml")


@pytest.mark.parametrize("name", ["Mine", "", " "])
def test_names_are_lower_case(name: str) -> None:
    with pytest.raises(ValueError, match="must be lower case and not empty"):
        things().register(name)


def test_a_name_is_given_once() -> None:
    registry = things()
    registry.register("mine")(first := object())
    registry.register("mine")(first)
    with pytest.raises(ValueError, match="'mine' is registered already"):
        registry.register("mine")(object())


def test_entry_points_are_listed_without_an_import_and_loaded_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside_good.py").write_text("THING = 'a thing'")
    install(tmp_path, "outside", {"good": "outside_good:THING"}, monkeypatch)
    registry = things()
    assert registry.names() == ["good"]
    assert "outside_good" not in sys.modules
    assert registry.get("good") == "a thing"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there_at_all", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("OTHER = 1", "AttributeError"),
    ],
)
def test_a_broken_entry_point_says_which(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"outside_{said.lower()}"
    (tmp_path / f"{module}.py").write_text(text)
    install(tmp_path, "outside", {"bad": f"{module}:THING"}, monkeypatch)
    with pytest.raises(UserError, match=f"thing 'bad' of entry point '{module}:THING'.*{said}"):
        things().get("bad")


def test_one_name_from_two_packages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "a", "one", {"same": "json:dumps"}, monkeypatch)
    install(tmp_path / "b", "other", {"same": "json:loads"}, monkeypatch)
    with pytest.raises(UserError, match="several installed packages: json:dumps, json:loads"):
        things().get("same")


def test_one_package_seen_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "a", "one", {"same": "json:dumps"}, monkeypatch)
    install(tmp_path / "b", "again", {"same": "json:dumps"}, monkeypatch)
    assert things().names() == ["same"]
    assert callable(things().get("same"))


@pytest.fixture
def keep_modules() -> object:
    before, known = dict(sys.modules), dict(OPS._registered)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    OPS._registered.clear()
    OPS._registered.update(known)


OPERATION = """
from torch import nn
from prefixnas import register_op

@register_op("{name}")
class Mine(nn.Identity):
    pass
"""


@pytest.mark.usefixtures("keep_modules")
def test_a_plugin_file_registers_and_may_be_loaded_twice(tmp_path: Path) -> None:
    path = tmp_path / "my_operations.py"
    path.write_text(OPERATION.format(name="test_plugged"))
    load_plugin(str(path))
    load_plugin(str(path))
    assert OPS.get("test_plugged").__name__ == "Mine"


@pytest.mark.usefixtures("keep_modules")
def test_a_plugin_cannot_take_the_place_of_another_module(tmp_path: Path) -> None:
    path = tmp_path / "random.py"
    path.write_text(OPERATION.format(name="test_shadow"))
    load_plugin(str(path))
    assert sys.modules["random"] is random
    assert "test_shadow" in OPS.names()


@pytest.mark.usefixtures("keep_modules")
def test_a_plugin_named_as_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_plugin.py").write_text(OPERATION.format(name="test_module"))
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugin("my_plugin")
    assert isinstance(sys.modules["my_plugin"], ModuleType)
    assert "test_module" in OPS.names()


@pytest.mark.usefixtures("keep_modules")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("1 / 0", "ZeroDivisionError"),
        (OPERATION.format(name="relu"), "'relu' is registered already"),
        (OPERATION.format(name="ReLU"), "must be lower case"),
    ],
)
def test_a_broken_plugin_says_so(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "broken_plugin.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"broken_plugin.py.*{said}"):
        load_plugin(str(path))
    assert "broken_plugin" not in sys.modules


def test_an_unknown_module_as_plugin() -> None:
    with pytest.raises(UserError, match="plugin 'no_such_module'"):
        load_plugin("no_such_module")
