from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peml.batches.sampler import MODES, JointSampler, Mode, batch_size_of
from prefixnas.base.errors import UserError

tables = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.lists(st.integers(1, 50), min_size=1, max_size=60),
    min_size=1,
)
options = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(MODES),
        "gamma": st.floats(0.01, 1.0),
        "batch_size": st.integers(1, 9),
        "temperature": st.floats(0.5, 5.0),
        "seed": st.integers(0, 5),
    }
)


@pytest.mark.parametrize(
    ("gamma", "size", "cap", "wanted"),
    [
        (0.1, 1000, 8, 8),
        (0.1, 30, 8, 3),
        (0.1, 39, 8, 3),
        (0.1, 5, 8, 1),
        (0.29, 100, 99, 29),
        (1.0, 4, 8, 4),
    ],
)
def test_batch_size_is_eq_1_with_caps(gamma: float, size: int, cap: int, wanted: int) -> None:
    assert batch_size_of(gamma, size, cap) == wanted


@given(tables, st.floats(0.01, 1.0), st.integers(1, 9))
def test_gamma_takes_every_task_every_step(
    lengths: dict[str, list[int]], gamma: float, cap: int
) -> None:
    sampler = JointSampler(lengths, gamma=gamma, batch_size=cap)
    for draws in islice(sampler, 5):
        assert [task for task, _ in draws] == list(lengths)
        for task, indices in draws:
            assert 1 <= len(indices) <= sampler.batch_sizes[task] <= cap
    for task, sizes in lengths.items():
        assert sampler.batch_sizes[task] == batch_size_of(gamma, len(sizes), cap)


@given(tables, options)
def test_every_example_once_an_epoch(lengths: dict[str, list[int]], given_: dict[str, Any]) -> None:
    sampler = JointSampler(lengths, **given_)
    drawn: dict[str, list[int]] = {task: [] for task in lengths}
    for draws in islice(sampler, 150):
        for task, indices in draws:
            drawn[task].extend(indices)
    for task, indices in drawn.items():
        size = len(lengths[task])
        for start in range(0, len(indices) - size + 1, size):
            assert sorted(indices[start : start + size]) == list(range(size))


@settings(max_examples=50)
@given(tables, options, st.integers(0, 40))
def test_resume_equals_uninterrupted(
    lengths: dict[str, list[int]], given_: dict[str, Any], done: int
) -> None:
    uninterrupted = JointSampler(lengths, **given_)
    list(islice(uninterrupted, done))
    state = json.loads(json.dumps(uninterrupted.state_dict()))
    resumed = JointSampler(lengths, **given_)
    resumed.load_state_dict(state)
    assert list(islice(resumed, 20)) == list(islice(uninterrupted, 20))


def test_gamma_by_task() -> None:
    sampler = JointSampler(
        {"a": [1] * 100, "b": [1] * 100, "c": [1] * 100},
        gamma={"a": 0.05, "b": None},
        batch_size=50,
    )
    assert sampler.batch_sizes == {"a": 5, "b": 10, "c": 10}


def test_round_robin_takes_turns_whole_batches() -> None:
    sampler = JointSampler({"a": [1] * 20, "b": [1] * 3}, mode="round-robin", batch_size=4)
    draws = list(islice(sampler, 4))
    assert [[task for task, _ in step] for step in draws] == [["a"], ["b"], ["a"], ["b"]]
    assert [len(step[0][1]) for step in draws] == [4, 3, 4, 3]


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.9), (2.0, 0.75), (1000.0, 0.5)])
def test_temperature_evens_tasks_out(temperature: float, share: float) -> None:
    sampler = JointSampler(
        {"big": [1] * 900, "small": [1] * 100}, mode="temperature", temperature=temperature
    )
    counts = Counter(step[0][0] for step in islice(sampler, 2000))
    # Four standard deviations of a binomial share at 2000 draws are at most 0.045.
    assert counts["big"] / 2000 == pytest.approx(share, abs=0.045)


def test_batches_hold_like_lengths() -> None:
    lengths = [(i * 37) % 100 for i in range(640)]
    sampler = JointSampler({"a": lengths}, gamma=1.0, batch_size=8)
    spreads = []
    for draws in islice(sampler, 80):
        sizes = [lengths[i] for i in draws[0][1]]
        spreads.append(max(sizes) - min(sizes))
    assert sum(spreads) / len(spreads) < 8


def test_epochs_and_seeds_differ() -> None:
    def epoch(seed: int, skip: int) -> list[Any]:
        sampler = JointSampler({"a": [1] * 40}, gamma=1.0, batch_size=4, seed=seed)
        return list(islice(sampler, skip, skip + 10))

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(1, 0)
    assert epoch(0, 0) != epoch(0, 10)


def test_same_draws_with_another_hash_seed() -> None:
    code = (
        "from itertools import islice; from peml.batches.sampler import JointSampler;"
        "print(list(islice(JointSampler({'a': [1]*30, 'b': [2]*9}, mode='temperature'), 9)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"mode": "round-robin"},
        {"batch_size": 2},
        {"lengths": {"a": [1] * 29, "b": [1]}},
        {"lengths": {"a": [1] * 30, "c": [1]}},
    ],
)
def test_a_state_of_another_sampling_is_refused(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"lengths": {"a": [1] * 30, "b": [1]}, "gamma": 1.0}
    state = JointSampler(**base).state_dict()
    with pytest.raises(UserError, match="cannot resume the sampling"):
        JointSampler(**{**base, **change}).load_state_dict(state)


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match=r"unknown sampling mode 'gama'.*'gamma'"):
        mode: Any = "gama"
        JointSampler({"a": [1]}, mode=mode)
    with pytest.raises(UserError, match="batch_size"):
        JointSampler({"a": [1]}, batch_size=0)
    with pytest.raises(UserError, match="gamma of task 'a'"):
        JointSampler({"a": [1]}, gamma=0.0)
    with pytest.raises(UserError, match="temperature"):
        JointSampler({"a": [1]}, temperature=0.0)
    with pytest.raises(UserError, match="'a' has no examples"):
        JointSampler({"a": []})
    with pytest.raises(UserError, match="no task"):
        JointSampler({})


def test_modes_are_all_typed() -> None:
    mode: Mode
    for mode in MODES:
        assert next(JointSampler({"a": [1]}, mode=mode)) == [("a", [0])]


@given(tables, options)
@settings(max_examples=60)
def test_an_epoch_is_over_when_every_example_came_up(
    lengths: dict[str, list[int]], given_: dict[str, Any]
) -> None:
    sampler = JointSampler(lengths, **given_)
    if given_["mode"] == "temperature":
        shares = {t: len(sizes) ** (1 / given_["temperature"]) for t, sizes in lengths.items()}
        for task, sizes in lengths.items():
            drawn = sampler.epoch * shares[task] / sum(shares.values())
            assert drawn * sampler.batch_sizes[task] >= len(sizes) - 1e-6
        return
    seen: dict[str, set[int]] = {task: set() for task in lengths}
    for step, draws in enumerate(sampler, start=1):
        for task, indices in draws:
            seen[task].update(indices)
        done = all(len(seen[task]) == len(sizes) for task, sizes in lengths.items())
        # Tasks take turns, so that the last of them may be through before its round is.
        turns = len(lengths) if given_["mode"] == "round-robin" else 1
        if done:
            assert step <= sampler.epoch < step + turns
            break
