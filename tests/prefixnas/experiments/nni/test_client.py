"""The trial's side: what it says to a manager, and that it needs nothing of NNI's."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from prefixnas.experiments.nni.client import Channel


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
