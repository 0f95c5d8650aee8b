"""A short form of each campaign; `make faults` runs all cases."""

from __future__ import annotations

import errno
import os
import random
import signal
from pathlib import Path

import pytest

from tests.faults.campaigns import (
    damages,
    interrupted,
    kills,
    sizes,
    spread,
    try_damage,
    try_signal,
    try_small_disk,
)
from tests.faults.commands import trials_of
from tests.faults.layer import WRITE, Fault
from tests.faults.outcomes import Outcome, Place, Verdict, compared


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("faults"))


KILLS = {"search": 2, "search by trials": 4, "train": 2, "export into a folder": 3, "report": 2}
KILLS |= {"tune": 2, "compare": 2}


@pytest.mark.parametrize("name", KILLS)
def test_a_command_that_is_killed_at_any_operation_goes_on(name: str, place: Place) -> None:
    command = place.commands[name]
    faults = kills(place, command, KILLS[name])
    assert faults
    for fault in faults:
        verdict = place.try_fault(command, fault)
        assert verdict.good, (str(fault), verdict)


def test_a_run_that_is_killed_in_its_first_moments_is_begun_or_goes_on(place: Place) -> None:
    command = place.commands["search by trials"]
    _, operations = place.whole(command)
    begun = next(n for n, line in enumerate(operations, 1) if line.endswith("/space.yaml.tmp"))
    for number in range(1, begun + 1, 4):
        verdict = place.try_fault(command, Fault("kill", number))
        assert verdict.outcome == Outcome.IDENTICAL, (operations[number - 1], verdict)


@pytest.mark.parametrize("name", ["search by trials", "export peml"])
def test_a_command_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    name: str, place: Place
) -> None:
    command = place.commands[name]
    faults = sizes(place, command, 4)[:-1]
    assert faults
    for fault in faults:
        command.clear(place.out)
        end = place.run(command.program, command.first, fault)
        assert end.code == 2 and "No space left" in end.said and str(place.out.parent) in end.said
        verdict = place.goes_on(command, place.whole(command)[0])
        assert verdict.outcome == Outcome.IDENTICAL, (str(fault), verdict)


def test_a_study_on_a_full_disk_finishes_all_trials_and_none_twice(place: Place) -> None:
    command = place.commands["tune"]
    whole, operations = place.whole(command)
    total = int(operations[-1].split()[1])
    command.clear(place.out)
    end = place.run(command.program, command.first, Fault("full", total // 2))
    assert end.code == 2 and "No space left" in end.said
    assert place.goes_on(command, whole).outcome == Outcome.IDENTICAL
    assert [trial["number"] for trial in trials_of(place.out)] == [0, 1, 2]
    assert {trial["state"] for trial in trials_of(place.out)} == {"COMPLETE"}


def test_a_disk_that_really_is_full(place: Place) -> None:
    try:
        verdict = try_small_disk(place, place.commands["search"], 200)
    except OSError as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    assert verdict.outcome == Outcome.IDENTICAL, verdict


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("flip state", Outcome.IDENTICAL),
        ("cut tensors of state", Outcome.IDENTICAL),
        ("cut previous", Outcome.IDENTICAL),
        ("flip both", Outcome.REFUSED),
        ("edit seed of config.yaml", Outcome.REFUSED),
        ("edit learning_rate of config.yaml", Outcome.REFUSED),
    ],
)
def test_a_damaged_checkpoint_is_gone_back_from_or_refused(
    name: str, outcome: Outcome, place: Place
) -> None:
    search = place.commands["search"]
    kept = interrupted(place, search, 0.7)
    verdict = try_damage(place, search, kept, dict(damages())[name], seed=0)
    assert verdict.outcome == outcome, verdict


def test_a_signal_at_a_random_moment(place: Place) -> None:
    verdict = try_signal(place, place.commands["search"], signal.SIGTERM, random.Random(0))
    assert verdict.outcome == Outcome.IDENTICAL, verdict


# The layer and the judge themselves


def test_the_layer_sees_every_kind_of_change(place: Place) -> None:
    _, operations = place.whole(place.commands["search"])
    kinds = {line.split()[0] for line in operations}
    assert {"open", WRITE, "fsync", "os.rename", "os.mkdir", "os.remove"} <= kinds
    written = {line.rpartition("/")[2] for line in operations if line.startswith(WRITE)}
    assert {"metrics.jsonl", "adapter_model.safetensors", "state.json.tmp", ".lock"} <= written
    counted = [int(line.split()[1]) for line in operations]
    assert counted == sorted(counted) and counted[-1] > 100_000


def test_the_layer_kills_in_place_of_the_operation(place: Place) -> None:
    command = place.commands["search by trials"]
    _, operations = place.whole(command)
    number = next(n for n, line in enumerate(operations, 1) if "os.rename" in line)
    for fault, there in ((Fault("kill", number), False), (Fault("kill", number + 1), True)):
        command.clear(place.out)
        end = place.run(command.program, command.first, fault)
        assert end.code == -signal.SIGKILL
        assert (place.out / "config.yaml").is_file() is there
        assert (place.out / "config.yaml.tmp").is_file() is not there


def test_the_judge_tells_what_is_missing_left_over_or_changed() -> None:
    whole = {"a": "1", "b": "2"}
    assert compared(whole, dict(whole)) == Verdict(Outcome.IDENTICAL)
    assert compared(whole, {"a": "1"}).outcome == Outcome.LOST
    assert compared(whole, {**whole, ".a.tmp": "3"}).outcome == Outcome.DIFFERENT
    assert compared(whole, {**whole, "b": "3"}).outcome == Outcome.DIFFERENT


def test_cases_are_spread_from_the_first_to_the_last() -> None:
    assert spread(range(100), 4) == [0, 33, 66, 99]
    assert spread(range(3), 4) == [0, 1, 2]


def test_an_event_that_finds_no_room_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefixnas.base.errors import UserError
    from prefixnas.run import events
    from prefixnas.run.run import Budget, Run
    from prefixnas.space.loading import load_space
    from prefixnas.testing import ToyObjective

    run = Run(tmp_path, load_space("mlp"), ToyObjective(), Budget(1, 1))
    genuine = Path.open

    def no_room(path: Path, *given: str, **options: str) -> object:
        if path.name == "metrics.jsonl":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return genuine(path, *given, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", no_room)
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written: No space left"):
        run.emit(events.Warning("x"))
