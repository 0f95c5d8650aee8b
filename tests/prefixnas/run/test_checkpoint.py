"""Checkpoints: what goes in comes out, a kill leaves the last whole one, damage is said."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefixnas.base.errors import UserError
from prefixnas.run.checkpoint import go_back, load_checkpoint, noted, save_checkpoint

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=2))
    return torch.randn(shape).to(draw(st.sampled_from(DTYPES)))


KEYS = st.text(st.sampled_from("ab/#.0"), max_size=4)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), tensors()
)
STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(st.integers(-3, 9), inner, max_size=3),
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    return type(one) is type(other) and one == other


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(KEYS, STATES, max_size=4))
def test_round_trip(state: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), state)
        assert same(state, load_checkpoint(Path(folder)))


def test_optimiser_state_round_trip(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.square().sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path, {"optimizer": optimizer.state_dict()})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    other = torch.optim.AdamW([torch.nn.Parameter(weight.detach().clone())])
    other.load_state_dict(loaded["optimizer"])
    assert same(other.state_dict()["state"], optimizer.state_dict()["state"])


def test_two_tensors_whose_paths_look_alike_stay_apart(tmp_path: Path) -> None:
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    save_checkpoint(tmp_path, state)
    assert same(state, load_checkpoint(tmp_path))


@pytest.mark.parametrize("state", [{"a": {1: 0, "1": 0}}, {"a": {"#tensor": 1}}, {"a": object()}])
def test_what_it_cannot_hold_is_refused(state: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        save_checkpoint(tmp_path, state)


def test_a_checkpoint_is_a_copy(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path, {"view": base.T, "row": base[0]})
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded["view"], base.T)
    assert torch.equal(loaded["row"], base[0])


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_the_last_two_are_kept_and_none_is_a_pickle(tmp_path: Path) -> None:
    for serial in (1, 2, 3):
        save_checkpoint(tmp_path, {"serial": serial, "x": torch.full((1,), serial)})
    names = [path.name for path in tmp_path.iterdir()]
    tensors = [name for name in names if re.fullmatch(r"tensors-\w+\.safetensors", name)]
    assert sorted({*names} - {*tensors}) == ["previous.json", "state.json"]
    assert len(tensors) == 2


def test_notes_at_one_position_leave_the_one_before_it(tmp_path: Path) -> None:
    for serial in (1, 2, 2, 2):
        save_checkpoint(tmp_path, {"x": torch.full((1,), serial)})
    (tmp_path / "state.json").write_text("{}")
    assert load_checkpoint(tmp_path) == {"x": torch.ones(1)}


@pytest.mark.parametrize("call", range(7))
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, {"n": 1, "x": torch.full((2,), 1.0)})
    left = call

    class Killed(BaseException):
        pass

    def dying(real: Any) -> Any:
        def call_or_die(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*args, **kwargs)

        return call_or_die

    monkeypatch.setattr(os, "fsync", dying(os.fsync))
    monkeypatch.setattr(Path, "replace", dying(Path.replace))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))
    try:
        save_checkpoint(tmp_path, {"n": 2, "x": torch.full((2,), 2.0)})
    except Killed:
        pass
    else:
        assert call == 6
    monkeypatch.undo()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["n"] == (1 if call < 6 else 2)
    assert loaded["x"].tolist() == [loaded["n"]] * 2
    save_checkpoint(tmp_path, {"n": 3})
    assert load_checkpoint(tmp_path) == {"n": 3}


def damage(kind: str, folder: Path) -> None:
    state = folder / "state.json"
    content = json.loads(state.read_text())
    data = folder / content["tensors"]
    if kind == "cut":
        state.write_text(state.read_text()[:-5])
    elif kind == "not json":
        state.write_bytes(b"\xff\x00")
    elif kind == "lost":
        state.unlink()
    elif kind == "no tensors":
        data.unlink()
    elif kind == "another number":
        state.write_text(state.read_text().replace('"n": 2', '"n": 3'))
    elif kind == "cut tensors":
        data.write_bytes(data.read_bytes()[:-50])
    elif kind == "a bit":
        whole = bytearray(data.read_bytes())
        whole[-1] ^= 1
        data.write_bytes(whole)
    else:
        state.write_text("{}")


KINDS = ["cut", "not json", "lost", "no tensors", "another number", "cut tensors", "a bit", "{}"]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_the_last_goes_back_to_the_one_before(kind: str, tmp_path: Path) -> None:
    for number in (1, 2):
        save_checkpoint(tmp_path, {"n": number, "x": torch.full((100,), number)})
    damage(kind, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None and loaded["n"] == 1 and loaded["x"].sum() == 100
    assert go_back(tmp_path).startswith(str(tmp_path))
    assert go_back(tmp_path) == ""
    save_checkpoint(tmp_path, {"n": 3, "x": torch.full((100,), 3)})
    assert noted(tmp_path, "n", 0) == 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "lost"])
def test_where_none_is_whole_it_is_said_in_one_line(kind: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"n": 2, "x": torch.ones(100)})
    damage(kind, tmp_path)
    with pytest.raises(UserError, match=r"checkpoint.*--out$") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
