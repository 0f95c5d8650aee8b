"""NNI itself: an environment of its own, named by PREFIXNAS_NNI_PYTHON, is needed.

python -m prefixnas.experiments.nni.environment nni-env
PREFIXNAS_NNI_PYTHON=nni-env/bin/python python -m pytest -m nni
"""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefixnas.base.errors import UserError
from prefixnas.experiments.experiment import Experiment, load_experiment
from prefixnas.experiments.nni.engine import Engine
from prefixnas.experiments.nni.environment import VARIABLE, find_environment
from prefixnas.experiments.nni.manager import Manager, inside, living_manager, start_manager
from prefixnas.experiments.nni.processes import processes_of
from prefixnas.experiments.nni.settings import read_settings
from prefixnas.experiments.nni.sockets import listeners
from prefixnas.experiments.nni.waiting import wait
from prefixnas.experiments.rows import COMPLETE, Row
from prefixnas.experiments.study import Study
from tests.prefixnas.experiments.nni.trials import KEYS, SECONDS
from tests.prefixnas.experiments.nni.waiting import free_port, wait_until

pytestmark = [
    pytest.mark.nni,
    pytest.mark.skipif(
        VARIABLE not in os.environ,
        reason=f"{VARIABLE} names no Python with NNI; docs/nni.md says how to set one up",
    ),
]

BASE = {"strategy": "fixed", "steps": 2, "eval_every": 1}
SPACE = {
    "learning_rate": {"loguniform": [1.0e-3, 2.0e-2]},
    "prefix_length": {"int": [5, 50]},
    "lora_rank": {"choice": [8, 16, 32]},
}


def make_engine(folder: Path, trials: int, **nni: Any) -> Engine:
    """Return an experiment of quick trials, ready to start."""
    path = folder / "experiment.yaml"
    nni = {"port": free_port(), "concurrency": 2, **nni}
    data = {"name": "quick", "base": BASE, "hyperparameters": SPACE, "trials": trials, "nni": nni}
    path.write_text(yaml.safe_dump(data))
    return engine_of(load_experiment(path), folder)


def engine_of(experiment: Experiment, folder: Path) -> Engine:
    return Engine(
        experiment,
        read_settings(experiment),
        folder / "experiment",
        find_environment(None),
        run="tests.prefixnas.experiments.nni.trials:run",
        leases=folder / "leases",
    )


def with_trials(engine: Engine, trials: int) -> Engine:
    file = replace(engine.experiment.file, trials=trials)
    return replace(engine, experiment=replace(engine.experiment, file=file))


def rows(engine: Engine) -> list[Row]:
    return Study.open(engine.experiment, engine.folder).rows()


def runs(engine: Engine) -> list[dict[str, Any]]:
    path = engine.folder / "trials" / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def running(engine: Engine, start: Callable[[], Manager]) -> Iterator[Manager]:
    try:
        yield start()
    finally:
        engine.stop()


def ask(
    manager: Manager, path: str, method: str = "GET", data: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    address = f"http://127.0.0.1:{manager.port}{path}"
    request = urllib.request.Request(address, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_thirty_two_trials_at_concurrency_eight(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, 32, concurrency=8)
    with running(engine, engine.start) as manager:
        refuses_strangers(engine, manager)
        assert wait(manager, lambda: listens_inside(engine, manager)) == "DONE"
        jobs = manager.rest.get("/trial-jobs")
        finals = {each["trialJobId"]: each for each in manager.rest.get("/metric-data?type=FINAL")}
        assert living_manager(engine.folder) is not None
    assert processes_of(engine.folder) == []

    found = rows(engine)
    assert [row.state for row in found] == [COMPLETE] * 32
    assert len(jobs) == 32 and {job["status"] for job in jobs} == {"SUCCEEDED"}
    for job in jobs:
        shown = json.loads(job["hyperParameters"][0])["parameters"]
        number = shown.pop("trial")
        folder = engine.folder / "trials" / f"{number:04}"
        assert shown == json.loads((folder / "config.json").read_text())
        assert shown == {key: found[number].params[key] for key in KEYS}
        final = json.loads(json.loads(finals[job["trialJobId"]]["data"]))
        assert final["default"] == found[number].score == shown["learning_rate"] * 2
        assert final["run directory"] == str(folder)
        assert (final["architecture"], final["parameters"]) == ("layer0/activation=relu", 7)
        assert sorted(found[number].epochs) == [1, 2]


def listens_inside(engine: Engine, manager: Manager) -> None:
    """Look at the sockets of everything that the experiment started."""
    started = processes_of(engine.folder)
    assert manager.process in started
    assert listeners(started) == {("127.0.0.1", manager.port)}


def refuses_strangers(engine: Engine, manager: Manager) -> None:
    listens_inside(engine, manager)
    started = processes_of(engine.folder)
    secret = f"/{manager.secret}"
    status = f"{secret}/api/v1/nni/check-status"
    assert ask(manager, status)[0] == 200
    assert ask(manager, status, Host="evil.example")[0] == 403
    assert ask(manager, status, Host=f"evil.example:{manager.port}")[0] == 403
    assert ask(manager, status, Origin="http://evil.example")[0] == 403
    for path in ("/", "/api/v1/nni/check-status", f"{secret}x/", "/index.html"):
        code, text = ask(manager, path)
        assert code == 404 and manager.secret.encode() not in text
    for path in ("trial-jobs", "experiment", "experiment/import-data", "TensorBoard/"):
        data = b'{"__nni_obj__": "gASVAAAAAAAAAAAu"}'
        headers = {"Content-Type": "application/json"}
        assert ask(manager, f"{secret}/api/v1/nni/{path}", "POST", data, **headers)[0] == 403
    assert ask(manager, f"{secret}/netron/")[0] == 403
    command = " ".join(" ".join(process.cmdline()) for process in started)
    assert manager.secret not in command  # `ps` shows it to everybody
    assert inside(engine.folder).stat().st_mode & 0o077 == 0


def test_a_stopped_experiment_goes_on_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECONDS, "3")
    engine = make_engine(tmp_path, 5)
    with running(engine, engine.start):
        wait_until(lambda: len(runs(engine)) >= 1)
        wait_until(lambda: sum(row.state == "running" for row in rows(engine)) == 2)
        assert engine.stop() == 0  # NNI and the launchers ended by themselves
    assert processes_of(engine.folder) == []
    with pytest.raises(UserError, match="was started before"):
        engine.start()

    monkeypatch.setenv(SECONDS, "0")
    more = with_trials(engine, 9)
    with running(more, more.resume) as manager:
        assert manager.port == engine.settings.port
        with pytest.raises(UserError, match="it runs already"):
            more.resume()
        assert wait(manager) == "DONE"
    found = rows(more)
    assert [row.state for row in found] == [COMPLETE] * 9
    assert len({tuple(sorted(row.params.items())) for row in found}) == 9
    assert sorted(run["trial"] for run in runs(more)) == [f"{number:04}" for number in range(9)]

    with running(more, more.view) as manager:
        assert manager.status() == "VIEWED"
        jobs = manager.rest.get("/trial-jobs")
        assert len(jobs) >= 9 and len({job["sequenceId"] for job in jobs}) == len(jobs)


def test_a_killed_manager_takes_no_trial_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECONDS, "8")
    engine = make_engine(tmp_path, 4)
    with running(engine, engine.start) as manager:
        folders = [engine.folder / "trials" / f"{number:04}" for number in range(2)]
        wait_until(lambda: all((folder / "config.json").exists() for folder in folders))
        process = manager.process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not processes_of(engine.folder, tuner=True), 10)
        assert runs(engine) == []
        monkeypatch.setenv(SECONDS, "0")
        manager = engine.resume()  # while they still run, on the same port
        assert manager.port == engine.settings.port
        assert wait(manager) == "DONE"
    found = rows(engine)
    assert [row.state for row in found] == [COMPLETE] * 4
    assert sorted(run["trial"] for run in runs(engine)) == [f"{number:04}" for number in range(4)]
    assert all(sorted(row.epochs) == [1, 2] for row in found)


def pretend_gpus(folder: Path, count: int) -> None:
    """Write an `nvidia-smi` that lists so many GPUs."""
    lines = [f"echo 'GPU {n}: NVIDIA A100-SXM4-40GB (UUID: GPU-{n:08})'" for n in range(count)]
    path = folder / "nvidia-smi"
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("gpus", "per_trial", "share", "concurrency"),
    [
        (1, 1, 1, 2),
        (1, 1, 2, 3),
        (2, 2, 1, 2),
        (2, 1, 2, 6),
        (4, 4, 1, 2),
        (4, 1, 1, 6),
        (4, 2, 2, 4),
    ],
)
def test_no_gpu_is_given_twice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    per_trial: int,
    share: int,
    concurrency: int,
) -> None:
    pretend_gpus(tmp_path, gpus)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(SECONDS, "1")
    engine = make_engine(
        tmp_path,
        concurrency + 1,
        concurrency=concurrency,
        gpus_per_trial=per_trial,
        trials_per_gpu=share,
    )
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, len(processes_of(engine.folder)))

    with running(engine, engine.start) as manager:
        assert wait(manager, count, 0.2) == "DONE"
    done = runs(engine)
    assert [row.state for row in rows(engine)] == [COMPLETE] * (concurrency + 1)
    assert len(done) == concurrency + 1
    # A manager, its tuner (a shell, Python, the study), four for each trial that has its GPUs, one
    # for each that waits; some more where one ends as the next begins.
    fit = min(gpus * share // per_trial, concurrency)
    assert most <= 4 + 4 * fit + (concurrency - fit) + 4
    busiest = 0
    for each in done:
        mine = each["gpus"].split(",")
        assert len(set(mine)) == per_trial and set(mine) <= set(map(str, range(gpus)))
        then = [other for other in done if other["from"] <= each["from"] < other["to"]]
        in_use = [gpu for other in then for gpu in other["gpus"].split(",")]
        assert all(in_use.count(gpu) <= share for gpu in in_use)
        busiest = max(busiest, len(then))
    assert busiest == fit  # none stays idle, either


def test_nnis_own_tuner_proposes_and_the_study_knows(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, 4, tuner={"Random": {"seed": 0}})
    with running(engine, engine.start) as manager:
        assert wait(manager) == "DONE"
    more = with_trials(engine, 6)
    with running(more, more.resume) as manager:
        assert wait(manager) == "DONE"
    found = rows(more)
    assert [row.state for row in found] == [COMPLETE] * 6
    assert len({row.params["learning_rate"] for row in found}) == 6
    assert all(
        row.params == json.loads((Path(row.notes["run directory"]) / "config.json").read_text())
        for row in found
    )


def test_a_failed_trial_is_kept_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIAL_FAILS", "1")
    # A secret that could be taken for a flag on the manager's command line.
    monkeypatch.setattr("prefixnas.experiments.nni.manager.secrets.token_hex", lambda _: "-x")
    engine = make_engine(tmp_path, 8, tuner={"GridSearch": {}})
    with running(engine, engine.start) as manager:
        assert wait(manager) == "DONE"
    found = rows(engine)
    assert {row.state for row in found} <= {"complete", "failed"}
    for row in found:
        assert (row.state == "failed") == (row.params["learning_rate"] < 0.0015)
        assert row.notes.get("error") == ("ValueError: too slow" if row.state == "failed" else None)


def test_an_open_listener_ends_the_manager(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, 2)
    with pytest.raises(UserError, match="--allow-remote"):
        replace(engine, host="0.0.0.0").start()
    for host in ("::1", "192.0.2.1"):
        with pytest.raises(UserError, match=r"reach it at 127\.0\.0\.1: take that, or"):
            replace(engine, host=host).start()
    # Should one be open all the same, the sockets tell.
    config, port = engine.create(), engine.settings.port
    with pytest.raises(UserError, match=f"NNI was ended: .*0\\.0\\.0\\.0:{port}"):
        start_manager(
            engine.folder, engine.environment, config, "quick", "create", host="0.0.0.0", port=port
        )
    assert not processes_of(engine.folder)


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    engine = make_engine(tmp_path, 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", engine.settings.port))
        taken.listen()
        with pytest.raises(UserError, match=f"port {engine.settings.port} .*--port"):
            engine.start()
    assert not processes_of(engine.folder) and not engine.folder.exists()
