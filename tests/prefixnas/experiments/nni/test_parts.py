"""What stands around NNI, without NNI: leases, process trees, the trial's and the study's side."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import prefixnas.__main__
from prefixnas.base.errors import UserError
from prefixnas.experiments.experiment import load_experiment
from prefixnas.experiments.hyperparameters import assign, read_hyperparameters
from prefixnas.experiments.lease import COUNT, Demand, acquire
from prefixnas.experiments.nni import environment, waiting
from prefixnas.experiments.nni.client import Channel
from prefixnas.experiments.nni.environment import find_environment
from prefixnas.experiments.nni.jobs import read_jobs
from prefixnas.experiments.nni.manager import inside
from prefixnas.experiments.nni.settings import LAUNCH
from prefixnas.experiments.nni.sockets import check_port, open_to_network
from prefixnas.experiments.nni.space import depth, pack, to_nni, unpack
from prefixnas.experiments.nni.study_server import StudyServer, note_error
from prefixnas.experiments.study import Study
from tests.prefixnas.experiments.nni.trials import run

# Leases


def leased(folder: Path, demand: Demand, count: int) -> tuple[int, ...] | None:
    """Take a lease if one can be had at once, and keep it."""
    tries = iter([False, True])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(COUNT, str(count))
        lease = acquire(folder, demand, wait=0, give_up=lambda: next(tries))
    return None if lease is None else lease.gpus


@pytest.mark.parametrize(
    ("count", "demand", "leases"),
    [
        (1, Demand(1), [(0,)]),
        (2, Demand(1), [(0,), (1,)]),
        (2, Demand(2), [(0, 1)]),
        (4, Demand(2), [(0, 1), (2, 3)]),
        (4, Demand(4), [(0, 1, 2, 3)]),
        (4, Demand(1, indices=(1, 3)), [(1,), (3,)]),
        (1, Demand(1, share=2), [(0,), (0,)]),
        (2, Demand(1, share=2), [(0,), (1,), (0,), (1,)]),
        (2, Demand(2, share=2), [(0, 1), (0, 1)]),
        (0, Demand(0), [(), (), ()]),
    ],
)
def test_every_gpu_is_leased_and_none_twice(
    tmp_path: Path, count: int, demand: Demand, leases: list[tuple[int, ...]]
) -> None:
    found = [leased(tmp_path, demand, count) for _ in range(len(leases))]
    assert sorted(map(str, found)) == sorted(map(str, leases))
    if demand.gpus:
        assert leased(tmp_path, demand, count) is None


def test_a_whole_gpu_and_a_share_of_it_exclude_each_other(tmp_path: Path) -> None:
    assert leased(tmp_path, Demand(1, share=2), 1) == (0,)
    assert leased(tmp_path, Demand(1), 1) is None
    other = tmp_path / "other"
    assert leased(other, Demand(1), 1) == (0,)
    assert leased(other, Demand(1, share=2), 1) is None


def test_a_demand_that_can_never_be_met_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COUNT, "2")
    with pytest.raises(UserError, match="wants 3 GPUs and 2 can be had"):
        acquire(tmp_path, Demand(3))
    with pytest.raises(UserError, match="no GPU 5"):
        acquire(tmp_path, Demand(1, indices=(5,)))


# The launcher

TREE = """
import os, subprocess, sys, time
subprocess.Popen(["setsid", "sleep", "600"])  # leaves the session
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(float(os.environ["SECONDS"]))
sys.exit(int(os.environ["CODE"]))
"""
MARK = "PREFIXNAS_TEST_TREE"


def start_launcher(folder: Path, seconds: float, code: int = 0) -> subprocess.Popen[str]:
    settings = folder / "launch.json"
    command = [sys.executable, "-c", TREE]
    data = {"gpus": 1, "share": 1, "indices": [], "leases": str(folder), "command": command}
    settings.write_text(json.dumps(data))
    variables = {"PREFIXNAS_GPUS": "1", "SECONDS": str(seconds), "CODE": str(code)}
    return subprocess.Popen(
        [sys.executable, "-m", "prefixnas.experiments.nni.launcher", str(settings)],
        env={**os.environ, **variables, MARK: str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_trials_side_by_side_share_the_cores(tmp_path: Path) -> None:
    """Two trials of all cores each spin for nine minutes where one needs one."""
    settings = tmp_path / "launch.json"
    said = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
    data = {"gpus": None, "share": 1, "indices": [], "leases": str(tmp_path), "command": said}
    settings.write_text(json.dumps({**data, "concurrency": 3}))
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", "prefixnas.experiments.nni.launcher", str(settings)],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    cores = len(os.sched_getaffinity(0))
    assert int(done.stdout) == max(1, cores // 3)


def tree_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != "zombie":
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def end_launcher(launcher: subprocess.Popen[str]) -> None:
    launcher.send_signal(signal.SIGINT)  # as NNI does


def kill_launcher(launcher: subprocess.Popen[str]) -> None:
    launcher.kill()


def kill_keeper(launcher: subprocess.Popen[str]) -> None:
    psutil.Process(launcher.pid).children()[0].kill()


@pytest.mark.parametrize("how", [end_launcher, kill_launcher, kill_keeper])
def test_nothing_of_a_trial_is_left_and_its_gpu_is_free_again(
    tmp_path: Path, how: Callable[[subprocess.Popen[str]], None]
) -> None:
    launcher = start_launcher(tmp_path, 600)
    assert launcher.stdout is not None and launcher.stdout.readline() == "0\n"
    assert leased(tmp_path, Demand(1), 1) is None
    how(launcher)
    code = launcher.wait(20)
    wait_until(lambda: tree_of(tmp_path) == [])
    assert code == {end_launcher: -signal.SIGINT, kill_launcher: -9, kill_keeper: 137}[how]
    assert leased(tmp_path, Demand(1), 1) == (0,)
    launcher.stdout.close()


def test_the_trials_exit_code_is_the_launchers(tmp_path: Path) -> None:
    launcher = start_launcher(tmp_path, 0, 7)
    output, _ = launcher.communicate(timeout=20)
    assert (launcher.returncode, output) == (7, "0\n")
    assert tree_of(tmp_path) == []


# The trial's side


class Manager(BaseHTTPRequestHandler):
    """NNI's channel of one trial: not yet, then the parameters."""

    received: list[dict[str, Any]]
    answers: list[tuple[int, bytes]]

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        code, body = self.answers.pop(0)
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def manager(answers: list[tuple[int, bytes]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    handler = type("Handler", (Manager,), {"received": [], "answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/env/trial", handler.received  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_trial_speaks_plain_json() -> None:
    record = {"parameter_id": 3, "parameters": {"trial": 7, "x": {"__nni_obj__": "gASVAAAAAAAu"}}}
    answer = json.dumps({"type": "parameter", "parameter": json.dumps(record)}).encode()
    with manager([(408, b""), (200, answer)]) as (url, received):
        channel = Channel(url, "job")
        assert channel.parameters() == record["parameters"]  # a pickle stays the text it is
        assert channel.intermediate({"default": 0.5}) and channel.intermediate({"default": 0.6})
        assert channel.final({"default": 0.7})
    assert received[0] == {"type": "request_parameter"}
    metrics = [json.loads(each["metric"]) for each in received[1:]]
    assert [(each["type"], each["sequence"]) for each in metrics] == [
        ("PERIODICAL", 0),
        ("PERIODICAL", 1),
        ("FINAL", 0),
    ]
    assert all((each["parameter_id"], each["trial_job_id"]) == (3, "job") for each in metrics)
    assert [json.loads(each["value"])["default"] for each in metrics] == [0.5, 0.6, 0.7]


def test_a_manager_that_is_gone_ends_no_trial(capsys: pytest.CaptureFixture[str]) -> None:
    with manager([]) as (url, _):
        channel = Channel(url, "job")
    assert not channel.intermediate({"default": 0.5}) and not channel.final({"default": 0.5})
    assert capsys.readouterr().out.count("not delivered") == 1


def test_a_trial_imports_neither_nni_nor_pickle_readers() -> None:
    code = (
        "import sys, prefixnas.experiments.nni.trial_process as t;"
        "sys.exit(str({'nni', 'cloudpickle'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) in [(0, ""), (1, "\n")]


# The search space

NESTED = {
    "learning_rate": {"loguniform": [1e-3, 1e-2]},
    "steps": {"logint": [2, 64]},
    "strategy": {
        "choice": [
            "fixed",
            {
                "darts": {
                    "clip": {"uniform": [0.5, 2]},
                    "relaxation": {"choice": ["a", {"b": {"warmup": {"int": [1, 9]}}}]},
                }
            },
        ]
    },
}


@given(st.data())
def test_values_come_back_from_nnis_form(data: st.DataObject) -> None:
    parameters = read_hyperparameters(NESTED, "here")
    answers: dict[str, Any] = {}

    def ask(parameter: Any) -> Any:
        if hasattr(parameter, "options"):
            answer = data.draw(st.sampled_from([option.label for option in parameter.options]))
        elif parameter.whole:
            answer = data.draw(st.integers(parameter.low, parameter.high))
        else:
            answer = data.draw(st.floats(parameter.low, parameter.high))
        answers[parameter.name] = answer
        return answer

    assign(parameters, ask)
    packed = json.loads(json.dumps(pack(parameters, answers)))
    assert set(packed) == {"learning_rate", "steps", "strategy"}
    assert unpack(parameters, packed) == answers


def test_the_search_space_in_nnis_words() -> None:
    parameters = read_hyperparameters(NESTED, "here")
    space = to_nni(parameters)
    assert space["learning_rate"] == {"_type": "loguniform", "_value": [1e-3, 1e-2]}
    assert space["steps"] == {"_type": "qloguniform", "_value": [2, 64, 1]}
    fixed, darts = space["strategy"]["_value"]
    assert fixed == {"_name": "fixed"} and darts["_name"] == "darts"
    assert darts["clip"] == {"_type": "uniform", "_value": [0.5, 2.0]}
    inner = darts["relaxation"]["_value"][1]
    assert inner["warmup"] == {"_type": "randint", "_value": [1, 10]}
    assert depth(parameters) == 2
    assert unpack(
        parameters, {"learning_rate": 5.0, "steps": 64.4, "strategy": {"_name": "fixed"}}
    ) == {
        "learning_rate": 1e-2,
        "steps": 64,
        "strategy": "fixed",
    }


# The study's side

EXPERIMENT = {
    "name": "parts",
    "base": {"strategy": "fixed", "steps": 2, "eval_every": 1},
    "hyperparameters": {
        "learning_rate": {"loguniform": [1e-3, 1e-2]},
        "prefix_length": {"int": [5, 9]},
        "lora_rank": {"choice": [8, 16]},
    },
    "trials": 3,
}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return Study.open(load_experiment(path), tmp_path / "study")


def carry_out(study: Study, values: dict[str, Any], report: Callable[[int, float], None]) -> None:
    run(values, report, study.trial_folder(values["trial"]))


@pytest.fixture(autouse=True)
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials that are run in this process start no worker."""
    monkeypatch.setattr("tests.prefixnas.experiments.nni.trials.start_worker", lambda: None)


def test_the_study_hands_out_each_trial_once(study: Study) -> None:
    server = StudyServer(study)
    handed = [server.answer({"do": "next", "own": True}) for _ in range(4)]
    assert [answer.get("trial") for answer in handed] == [0, 1, 2, None]
    first = handed[0]["values"]
    carry_out(study, first, lambda *_: None)
    server.answer({"do": "end", "trial": 0, "success": True})
    note_error(study.trial_folder(1), ValueError("too hot"))
    server.answer({"do": "end", "trial": 1, "success": False})
    server.answer({"do": "end", "trial": 2, "success": False})
    rows = study.rows()
    assert [row.state for row in rows] == ["complete", "failed", "failed"]
    assert rows[0].score == first["learning_rate"] * 2 and rows[0].params == {
        key: value for key, value in first.items() if key != "trial"
    }
    assert [row.notes.get("error") for row in rows[1:]] == [
        "ValueError: too hot",
        "its process was ended",
    ]


def test_what_a_lost_manager_left_is_found_again(study: Study) -> None:
    server = StudyServer(study)
    handed = [server.answer({"do": "next", "own": True})["values"] for _ in range(3)]
    server.close()
    carry_out(study, handed[0], lambda *_: None)  # finished while there was no manager
    again = StudyServer(study, recovered=[1])  # which NNI starts again by itself
    assert [row.state for row in study.rows()] == ["complete", "running", "running"]
    assert again.answer({"do": "next", "own": True})["values"] == handed[2]
    assert "trial" not in again.answer({"do": "next", "own": True})
    carry_out(study, handed[1], lambda *_: None)
    again.answer({"do": "sync"})
    assert study.row(1).state == "complete"
    value = {"trial": 1, "default": -1.0}
    assert again.answer({"do": "tell", "trial": 1, "value": value}) == {}  # told already
    assert study.row(1).score == handed[1]["learning_rate"] * 2


def test_a_trial_of_another_machine_is_told_by_its_message(study: Study) -> None:
    server = StudyServer(study)
    server.answer({"do": "next", "own": True})
    assert server.answer({"do": "report", "trial": 0, "epoch": 1, "score": 0.3}) == {"prune": False}
    value = {
        "default": 0.7,
        "trial": 0,
        "parameters": 5,
        "architecture": "layer0/a=x, layer1/a=f(0.1)",
        "validation": 0.6,
        "steps": 9,
    }
    server.answer({"do": "tell", "trial": 0, "value": value})
    # The last epoch was overtaken by the result.
    server.answer({"do": "report", "trial": 0, "epoch": 2, "score": 0.7})
    server.answer({"do": "end", "trial": 0, "success": True})
    row = study.row(0)
    assert (row.state, row.score, row.notes["steps"]) == ("complete", 0.7, 9)
    assert dict(row.epochs) == {1: 0.3, 2: 0.7}
    assert row.notes["architecture"] == {"layer0/a": "x", "layer1/a": "f(0.1)"}


@pytest.mark.parametrize("ending", ["end first", "closed"])
def test_a_result_from_another_machine_is_not_lost(study: Study, ending: str) -> None:
    server = StudyServer(study)
    server.answer({"do": "next", "own": True})
    told = {"default": 0.7, "trial": 0, "architecture": "", "parameters": 5, "validation": 0.6}
    if ending == "end first":
        server.answer({"do": "end", "trial": 0, "success": True})
        assert study.row(0).state == "running"
    server.answer({"do": "tell", "trial": 0, "value": {**told, "steps": 9}})
    if ending == "closed":
        server.close()
    assert (study.row(0).state, study.row(0).score) == ("complete", 0.7)


def test_the_pruner_ends_a_trial(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    pruner = {"threshold": {"lower": 0.5}}
    path.write_text(yaml.safe_dump({**EXPERIMENT, "pruner": pruner}))
    study = Study.open(load_experiment(path), tmp_path / "study")
    server = StudyServer(study)
    server.answer({"do": "next", "own": True})
    assert not server.answer({"do": "report", "trial": 0, "epoch": 1, "score": 0.6})["prune"]
    assert server.answer({"do": "report", "trial": 0, "epoch": 2, "score": 0.4})["prune"]
    server.answer({"do": "end", "trial": 0, "success": False})
    row = study.row(0)
    assert (row.state, dict(row.epochs)) == ("pruned", {1: 0.6, 2: 0.4})


def test_proposals_of_nnis_tuners_enter_the_study_once(study: Study) -> None:
    server = StudyServer(study)
    proposal = {"learning_rate": 0.005, "prefix_length": 7, "lora_rank": 16}
    assert server.answer({"do": "next", "own": False}) == {"propose": True}
    taken = server.answer({"do": "take", "values": proposal})
    assert taken == {"trial": 0, "values": {"trial": 0, **proposal}}
    assert server.answer({"do": "take", "values": proposal}) == {"repeated": True}
    carry_out(study, taken["values"], lambda *_: None)
    server.answer({"do": "end", "trial": 0, "success": True})
    known = server.answer({"do": "known"})
    assert known == {
        "trials": [{"parameter": proposal, "value": 0.01}],
        "direction": "maximize",
    }


def test_a_trial_that_nni_has_yet_to_start_is_waited_for(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = StudyServer(study)
    handed = [server.answer({"do": "next", "own": True})["trial"] for _ in range(2)]
    path = inside(study.folder) / LAUNCH
    path.parent.mkdir()
    path.write_text(json.dumps(study.experiment.order()))
    jobs: list[dict[str, Any]] = []
    looks = 0

    class Stub:
        folder = study.folder
        rest = SimpleNamespace(get=lambda _: jobs)

        def status(self) -> str:
            return waiting.NO_MORE

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks in (1, 5):
            values = json.dumps({"parameters": {"trial": handed[len(jobs)]}})
            jobs.append({"status": "SUCCEEDED", "hyperParameters": [values]})

    monkeypatch.setattr(waiting, "SETTLE", 0.01)
    assert waiting.wait(Stub(), look, 0.02) == "DONE"  # type: ignore[arg-type]
    assert looks > 5


def test_jobs_are_read_from_nnis_database(tmp_path: Path) -> None:
    assert read_jobs(tmp_path) == []


# The environment


def python_that_says(folder: Path, **found: Any) -> Path:
    """Write a stand-in for a Python that reports these versions."""
    path = folder / "python"
    said = {"python": [3, 11], "site": str(folder), "nni": "3.0", "filelock": "3.11.0", **found}
    path.write_text(f"#!/bin/sh\necho '{json.dumps(said)}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"nni": None}, "NNI is not installed there: set it up with `python -m prefixnas"),
        ({"nni": "2.10"}, "NNI 2.10; the guard is for NNI 3.0 alone"),
        ({"filelock": "3.20.3"}, "filelock 3.20.3 makes NNI hang"),
        ({"filelock": "4.2"}, "install 'filelock<3.12' there"),
        ({"python": [3, 14]}, "does not run on Python 3.14"),
        ({}, "main.js: cannot be read"),
    ],
)
def test_an_environment_that_would_not_do_is_one_line(
    tmp_path: Path, found: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        find_environment(python_that_says(tmp_path, **found))
    assert "\n" not in str(error.value)


def test_changed_files_are_refused(tmp_path: Path) -> None:
    for line in environment.GUARDED.read_text().splitlines():
        path = tmp_path / line.split()[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("// changed")
    with pytest.raises(UserError, match=r"is not as in NNI 3\.0; the guard leans on it"):
        find_environment(python_that_says(tmp_path))


def test_no_python_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be run as a Python"):
        find_environment(tmp_path / "nothing")


# Sockets


def test_listeners_that_the_network_can_reach_are_found() -> None:
    me = psutil.Process()
    with socket.socket() as inside, socket.socket() as outside:
        inside.bind(("127.0.0.1", 0))
        inside.listen()
        assert open_to_network([me]) == []
        with pytest.raises(UserError, match=r"cannot be taken .*--port"):
            check_port("127.0.0.1", inside.getsockname()[1])
        outside.bind(("0.0.0.0", 0))
        outside.listen()
        assert open_to_network([me]) == [f"0.0.0.0:{outside.getsockname()[1]}"]


# The command


@pytest.mark.parametrize(
    ("nni", "flags", "message"),
    [
        ({"tuner": "Randon"}, [], "unknown tuner 'Randon': did you mean 'Random'?"),
        ({}, ["--tuner", "tpe"], "unknown tuner 'tpe'"),
        ({"concurency": 2}, [], "unknown key 'concurency': did you mean 'concurrency'?"),
        ({"port": 99999}, [], "key 'port': must be"),
        ({"concurrency": 0}, [], "key 'concurrency': must be"),
        ({"config": {"search_space": {}}}, [], "'search_space' is made from the experiment"),
        (
            {"config": {"training_service": {"platform": "local", "trial_gpu_number": 1}}},
            [],
            "use gpus_per_trial",
        ),
        ({"config": {"training_service": {"platform": "remote"}}}, [], "needs worker_python"),
        (
            {"config": {"training_service": {"platform": "remot"}}},
            [],
            "unknown training service 'remot': did you mean 'remote'?",
        ),
        ({}, ["--nni-python", "nowhere/python"], "cannot be run as a Python"),
        ({}, ["--prot", "1"], "unknown argument '--prot': did you mean '--port'?"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nni: dict[str, Any],
    flags: list[str],
    message: str,
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, "nni": nni}))
    out = tmp_path / "out"
    code = prefixnas.__main__.main(["experiment", "start", str(path), "--out", str(out), *flags])
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and message in error
    assert not out.exists()


def test_choices_inside_choices_are_refused_for_nnis_tuners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "experiment.yaml"
    nested = {
        "strategy": {
            "choice": [
                "fixed",
                {
                    "darts": {
                        "relaxation": {
                            "choice": ["softmax", {"gumbel": {"clip": {"uniform": [1, 2]}}}]
                        }
                    }
                },
            ]
        }
    }
    base = {"steps": 4, "eval_every": 1}
    data = {**EXPERIMENT, "base": base, "hyperparameters": nested, "nni": {"tuner": "TPE"}}
    path.write_text(yaml.safe_dump(data))
    code = prefixnas.__main__.main(
        ["experiment", "start", str(path), "--out", str(tmp_path / "out")]
    )
    assert code == 2 and "fails on choices inside choices" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["status", "export"])
def test_no_study_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    code = prefixnas.__main__.main(
        ["experiment", action, str(path), "--out", str(tmp_path / "out")]
    )
    said = capsys.readouterr()
    assert (code, said.out) == (2, "") and "no study of the experiment 'parts'" in said.err
    assert not (tmp_path / "out").exists()


def test_status_and_export_come_from_the_study(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = StudyServer(study)
    values = server.answer({"do": "next", "own": True})["values"]
    carry_out(study, values, lambda *_: None)
    server.answer({"do": "end", "trial": 0, "success": True})
    file, out = str(tmp_path / "experiment.yaml"), str(study.folder)
    assert prefixnas.__main__.main(["experiment", "status", file, "--out", out]) == 0
    shown = capsys.readouterr().out
    assert "NNI: not running" in shown and "1 of 3 trials are over; best: trial 0" in shown
    server.answer({"do": "next", "own": True})
    server.close()  # nobody runs that one any more
    assert prefixnas.__main__.main(["experiment", "status", file, "--out", out]) == 0
    assert "cut off" in capsys.readouterr().out
    table = tmp_path / "trials.json"
    arguments = ["experiment", "export", file, "--out", out, "--to"]
    assert prefixnas.__main__.main([*arguments, str(table)]) == 0
    first = json.loads(table.read_text())[0]
    assert first["score"] == values["learning_rate"] * 2 == study.row(0).score
    assert first["run directory"] == str(study.trial_folder(0))
    assert prefixnas.__main__.main([*arguments, str(tmp_path / "trials.csv")]) == 0
    assert (tmp_path / "trials.csv").read_text().startswith("trial,state,score,validation,")
    assert prefixnas.__main__.main([*arguments, str(tmp_path / "trials.txt")]) == 2
