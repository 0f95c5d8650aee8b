"""`peml push` against a hub on loopback: whole, or one line and nothing changed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

import peml
from peml.__main__ import main
from peml.adapters import push as pushing
from tests.hub import TOKEN, Hub, hub
from tests.workbench import digest

Trained = Callable[[str], Path]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hub() as state:
        monkeypatch.setattr(constants, "ENDPOINT", state.url)
        yield state


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Path:
    shutil.copytree(trained("llama"), tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_pushed_with_its_own_files_alone(
    run: Path, served: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "plots").mkdir(exist_ok=True)
    (run / "plots" / "architecture.png").write_bytes(b"a drawing")
    for name in ("secrets.json", "data.jsonl", ".env", "lora/state.safetensors"):
        (run / "adapter" / name).write_text("mine")
    before = digest(run)
    capsys.readouterr()
    assert main(["push", str(run), "me/model", "--private"]) == 0
    out, err = capsys.readouterr()
    repo = served.repos["me/model"]
    files = repo.files()
    own = {"peml.json", "prefix.safetensors", "README.md", "architecture.png"}
    lora = {"lora/adapter_config.json", "lora/adapter_model.safetensors"}
    assert set(files) == own | lora | {"tokenizer.json", "tokenizer_config.json", ".gitattributes"}
    assert repo.private and out.strip().startswith(f"{served.url}/me/model/commit/")
    assert ".env, data.jsonl, lora/state.safetensors, secrets.json" in err
    for name in set(files) - {"README.md", ".gitattributes", "architecture.png"}:
        assert files[name] == (run / "adapter" / name).read_bytes()
    assert digest(run) == before
    card = ModelCard(files["README.md"].decode())
    assert card.data.model_name == "model"
    assert 'folder = snapshot_download("me/model")' in card.text
    assert "](architecture.png)" in card.text


def test_a_revision_is_a_branch(run: Path, served: Hub) -> None:
    assert main(["push", str(run), "me/model", "--revision", "second"]) == 0
    repo = served.repos["me/model"]
    assert set(repo.files("main")) == {".gitattributes"} and "peml.json" in repo.files("second")
    assert main(["push", str(run), "me/model"]) == 0
    assert "peml.json" in repo.files("main") and not repo.private


def test_a_merged_model_gets_a_branch_which_the_adapter_names(
    trained: Trained, served: Hub, tmp_path: Path
) -> None:
    import json

    peml.export(trained("llama"), tmp_path / "out", "peft")
    repo = served.repo("me/model", {"adapter_config.json": b"{}", "old.txt": b""})
    assert main(["push", str(tmp_path / "out"), "me/model"]) == 0
    config = json.loads(repo.files()["adapter_config.json"])
    assert config["base_model_name_or_path"] == "me/model"
    base = repo.commits[config["revision"]]
    merged = {path.name: path.read_bytes() for path in (tmp_path / "out" / "merged").iterdir()}
    assert base == {".gitattributes": b"", **merged}
    assert "old.txt" in repo.files()  # what others put there stays
    assert str(tmp_path) not in "".join(map(str, repo.files().values()))


@pytest.mark.slow
def test_what_was_pushed_loads_by_its_name_alone(
    trained: Trained, served: Hub, tmp_path: Path
) -> None:
    peml.export(trained("llama"), tmp_path / "out", "peft")
    assert main(["push", str(tmp_path / "out"), "me/model"]) == 0
    code = (
        "from peft import AutoPeftModelForCausalLM\n"
        "from transformers import AutoTokenizer\n"
        "model = AutoPeftModelForCausalLM.from_pretrained('me/model').eval()\n"
        "ids = AutoTokenizer.from_pretrained('me/model')('film good a', return_tensors='pt')\n"
        "print(model(**ids).logits.sum().item())\n"
    )
    there = {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **there}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ours = peml.load(trained("llama"))
    ids = ours.tokenizer("film good a", return_tensors="pt")
    wanted = float(ours.model(**ids).logits.detach().sum())
    assert float(done.stdout.split()[-1]) == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_the_licence_of_a_base_on_the_hub_is_looked_up(
    run: Path, served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    served.repo("them/base", {"README.md": b"---\nlicense: mit\n---\n"})
    card = ModelCard((run / "adapter" / "README.md").read_text())
    card.data["base_model"] = "them/base"
    (run / "adapter" / "README.md").write_text(str(card))
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    pushing.push(run, "me/model", endpoint=served.url)
    pushed = ModelCard(served.repos["me/model"].files()["README.md"].decode())
    assert pushed.data.license == "mit"
    assert pushed.text.endswith("That of the base model, by its own card: mit.\n")


def refused(run: Path, said: str, capsys: pytest.CaptureFixture[str], repo: str = "me/m") -> None:
    before = digest(run)
    capsys.readouterr()
    assert main(["push", str(run), repo]) == 2
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if not line.startswith("warning:")]
    assert out == "" and len(errors) == 1
    assert errors[0].startswith("error: ") and re.search(said, errors[0]), errors[0]
    assert digest(run) == before


def test_without_a_token_nothing_is_asked(
    run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pushing, "get_token", lambda: None)
    refused(run, "no token of a hub: `hf auth login`", capsys)
    assert served.asked == []


def test_a_wrong_token_is_refused(
    run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(run, "refuses me/m: 401: Invalid username or password", capsys)
    assert not served.repos


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("POST .*/create", "403: You have no rights"),
        ("GET .*/models/me/m", "503|500"),
        ("POST .*/commit/", "403: You have no rights"),
        ("POST .*/objects/batch", "403: You have no rights"),
        ("PUT /lfs/", "You have no rights|403"),
    ],
)
def test_a_refusal_on_the_way_leaves_no_half_commit(
    request_: str, said: str, run: Path, served: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    code = 500 if request_.startswith("GET") else 403
    served.refuse[request_] = (code, "You have no rights")
    refused(run, said, capsys)
    assert all(set(repo.files()) == {".gitattributes"} for repo in served.repos.values())


def test_a_card_that_the_hub_does_not_take_stops_the_push(
    run: Path, served: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "adapter" / "README.md").write_text("---\nbase_model: /a/folder\n---\n")
    refused(run, "is no id of the hub", capsys)
    assert set(served.repos["me/m"].files()) == {".gitattributes"}


def test_a_hub_that_is_not_there(
    run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(run, "http://127.0.0.1:9: does not answer: ", capsys)


def test_a_hub_that_does_not_answer(
    run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pushing, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        refused(run, f"127.0.0.1:{port}: does not answer: ", capsys)


@pytest.mark.parametrize("repo", ["model", "a/b/c", "/model", "me/", "me/mo del", "me/-x"])
def test_a_name_that_is_none(
    repo: str, run: Path, served: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(run, "a repository is OWNER/NAME", capsys, repo)
    assert not served.repos


def test_what_is_no_model_is_not_pushed(
    run: Path, served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text("{}")
    refused(tmp_path / "data", "is no run with an adapter", capsys)
    refused(tmp_path / "nowhere", "is no run with an adapter", capsys)
    shutil.rmtree(run / "adapter")
    refused(run, "is no run with an adapter", capsys)


def test_a_damaged_adapter_is_not_pushed(
    run: Path, served: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "adapter" / "prefix.safetensors").write_bytes(b"damaged")
    refused(run, r"prefix\.safetensors: damaged", capsys)
    assert served.asked == []


def test_who_cannot_load_it_is_told(
    run: Path, served: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["push", str(run), "me/model"]) == 0
    assert "names its base model by a path of this machine" in capsys.readouterr().err


def test_an_adapter_of_before_there_were_cards_gets_one(run: Path, served: Hub) -> None:
    (run / "adapter" / "README.md").unlink()
    assert main(["push", str(run), "me/model"]) == 0
    pushed = ModelCard(served.repos["me/model"].files()["README.md"].decode())
    assert pushed.data.eval_results and 'snapshot_download("me/model")' in pushed.text
    assert not (run / "adapter" / "README.md").exists()
