"""`peml generate` on tiny models: prompts of many lines, records, templates, sampling."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import peml
from peml.__main__ import main
from peml.answers.writing import Sampling, write_after
from peml.batches.collate import Collator
from prefixnas.base.errors import UserError
from tests.peml import tiny
from tests.workbench import write_lines

Trained = Callable[[str], Path]
PROMPTS = ["film good a b", "plot bad", "very very good film : a", "not so"]


@pytest.fixture(scope="module")
def adapter(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a llama with a task of one field, and one of two."""
    home = tmp_path_factory.mktemp("adapter")
    shutil.copytree(bench / "llama", home / "llama")
    for name, template in (("one", "film {text}\\n:"), ("two", "{first} {second}")):
        rows = [{"text": "good", "first": "a", "second": "b", "label": "yes"}] * 3
        for split in ("train", "validation"):
            write_lines(home / name / f"{split}.jsonl", rows)
        (home / name / "task.yaml").write_text(f'template: "{template}"\n')
    config = peml.LanguageModelConfig(
        model=str(home / "llama"), tasks=[str(home / "one"), str(home / "two")]
    )
    objective = config.build(total_steps=1, seed=0)
    objective.reset(None, seed=0)
    objective.save(home / "run" / "adapter")
    return home / "run"


class Terminal:
    """A command's standard input and output."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capsys, self.patch = capsys, patch

    def run(self, *argv: str, given: str = "") -> str:
        self.patch.setattr("sys.stdin", io.StringIO(given))
        self.capsys.readouterr()
        assert main(argv) == 0
        out, err = self.capsys.readouterr()
        assert not err
        return out

    def refused(self, *argv: str, given: str = "") -> str:
        self.patch.setattr("sys.stdin", io.StringIO(given))
        self.capsys.readouterr()
        assert main(argv) == 2
        out, err = self.capsys.readouterr()
        assert not out and err.count("\n") == 1
        return err


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(capsys, monkeypatch)


def test_standard_input_is_one_prompt_however_many_lines(
    adapter: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def note(collator: Collator, prompts: list[str], *rest: object, **options: object) -> list[str]:
        seen.extend(prompts)
        return [prompt.upper() for prompt in prompts]

    monkeypatch.setattr("peml.adapters.adapted.write_after", note)
    assert terminal.run("generate", str(adapter), given="one\ntwo\n") == "ONE\nTWO\n"
    assert terminal.run("generate", str(adapter), given="") == "\n"
    terminal.run("generate", str(adapter), "--task", "one", given="good\nbad\n")
    assert seen == ["one\ntwo", "", "film good\nbad\n:"]


def test_records_are_read_and_kept(adapter: Path, terminal: Terminal) -> None:
    rows = [{"id": 3, "prompt": PROMPTS[0]}, {"prompt": "film\ngood"}]
    given = "".join(json.dumps(row) + "\n" for row in rows)
    lines = terminal.run("generate", str(adapter), "--jsonl", given=given).splitlines()
    model = peml.load(adapter)
    wanted = [{**row, "generation": model.generate(str(row["prompt"]))} for row in rows]
    assert [json.loads(line) for line in lines] == wanted
    two = '{"first": "good", "second": "film"}\n'
    [line] = terminal.run("generate", str(adapter), "--jsonl", "--task", "two", given=two).split(
        "\n"
    )[:1]
    assert json.loads(line)["generation"] == model.generate("good film")


def test_a_method_that_needs_a_task_asks_for_the_flag(
    bench: Path, tmp_path: Path, terminal: Terminal
) -> None:
    options = peml.LanguageModelConfig.of("poly")
    objective = options(model=str(bench / "llama"), tasks=[str(bench / "mood")]).build(1, seed=0)
    objective.reset(None, seed=0)
    objective.save(tmp_path / "run" / "adapter")
    told = terminal.refused("generate", str(tmp_path / "run"), "film good")
    assert told == "error: method 'Poly': say with --task of which task (mood)\n"


def test_what_is_wrong_is_one_line(adapter: Path, terminal: Terminal) -> None:
    run = ["generate", str(adapter)]
    for argv, given, said in (
        (
            ["--jsonl"],
            '{"prompt": "a"}\n\n{"input": 1}\n',
            "standard input, line 3: no field 'prom",
        ),
        (["--jsonl"], "film\n", "standard input, line 1: not valid JSON"),
        (["--jsonl", "film"], "", "--jsonl reads standard input"),
        (["--jsonl"], '{"prompt": "a", "generation": 1}\n', "'generation' is there already"),
        (["--task", "two", "film"], "", "uses the fields first, second: give records"),
        (["--task", "tow", "film"], "", "unknown task 'tow': did you mean 'two'"),
        (["film", "--temperature", "0.5"], "", "temperature does nothing"),
        (["film", "--do-sample", "--temperature", "0"], "", "'temperature': must be above 0"),
        (["film", "--do-sample", "--top-p", "1.5"], "", "'top_p': must be"),
        (["film", "--num-beams", "x"], "", "--num-beams"),
        (["film", "--batch-size", "0"], "", "--batch-size"),
        (["film", "--device", "tpu"], "", "device 'tpu'"),
        (["film", "--max-new-tokens", "64"], "", "leave no room in 64 tokens"),
    ):
        assert said in terminal.refused(*run, *argv, given=given)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_batches_change_nothing(family: str, trained: Trained) -> None:
    model = peml.load(trained(family), dtype="float64")
    for sampling in ({}, {"num_beams": 3}):
        alone = [model.generate(prompt, max_new_tokens=6, **sampling) for prompt in PROMPTS]
        for size in (2, 9):
            together = model.generate_all(PROMPTS, max_new_tokens=6, batch_size=size, **sampling)
            assert together == alone


def test_draws_follow_the_seed_and_leave_those_of_others(trained: Trained) -> None:
    model = peml.load(trained("llama"))

    def drawn(seed: int, **options: float) -> list[str]:
        return model.generate_all(PROMPTS, do_sample=True, seed=seed, **options)

    torch.manual_seed(9)
    before = torch.get_rng_state()
    first = drawn(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == drawn(1) != drawn(2)
    greedy = model.generate_all(PROMPTS)
    assert first != greedy
    assert drawn(1, top_k=1) == drawn(2, temperature=1e-3) == greedy


def test_what_transformers_writes_is_what_is_written() -> None:
    lm = tiny.llama()
    ids = lm.tokenizer("film good a b", return_tensors="pt")["input_ids"]
    for options in ({"num_beams": 4}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}):
        torch.manual_seed(3)
        wanted = lm.model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=5,
            pad_token_id=0,
            eos_token_id=3,
            **options,
        )[0, ids.shape[1] :]
        [found] = write_after(
            Collator(lm), ["film good a b"], Sampling(max_new_tokens=5, seed=3, **options)
        )
        assert found == lm.tokenizer.decode(wanted, skip_special_tokens=True)


def test_prompts_that_are_cut_are_told_of(trained: Trained) -> None:
    told: list[str] = []
    peml.load(trained("llama")).generate_all(["film " * 99, "film"], warn=told.append)
    assert told == ["1 of 2 prompts were longer than the model's window and lost their beginning"]


def test_from_python_an_unknown_name_is_named(trained: Trained) -> None:
    with pytest.raises(UserError, match="unknown key 'temprature': did you mean 'temperature'"):
        peml.load(trained("llama")).generate("film", temprature=1.0)
