"""`peml predict` and `peml evaluate --predictions` on tiny models."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet

import peml
from peml.__main__ import main
from peml.commands.progress import counted
from prefixnas.base.errors import UserError
from prefixnas.commands.output import Output
from tests.workbench import digest, write_lines

Trained = Callable[[str], Path]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    return err


@pytest.fixture(scope="module")
def kinds(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a llama that was to learn a number, a text, and choices of each record."""
    home = tmp_path_factory.mktemp("kinds")
    shutil.copytree(bench / "llama", home / "llama")
    for split in ("train", "validation"):
        rows = [{"text": f"film {w} a", "stars": n} for n, w in ((1.5, "bad"), (3.5, "good"))]
        write_lines(home / "stars" / f"{split}.jsonl", rows * 2)
        write_lines(home / "echo" / f"{split}.jsonl", [{"input": "a b", "label": "b a"}] * 3)
        own = [{"input": "a", "from": ["a", "b"], "label": "a"}]
        own += [{"input": "b", "from": ["c", "d"], "label": "d"}]
        write_lines(home / "own" / f"{split}.jsonl", own * 2)
    (home / "stars/task.yaml").write_text('template: "{text} :"\nlabel: stars\nkind: regression\n')
    (home / "own/task.yaml").write_text("choices: from\n")
    config = peml.LanguageModelConfig(
        model=str(home / "llama"), tasks=[str(home / n) for n in ("stars", "echo", "own")]
    )
    objective = config.build(total_steps=1, seed=0)
    objective.reset(None, seed=0)
    objective.save(home / "run" / "adapter")
    return home


@pytest.mark.parametrize("family", ["llama", "t5", "bert"])
def test_new_rows_get_the_answers_that_are_scored(
    family: str, bench: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, scored = trained(family), tmp_path / "scored.jsonl"
    assert main(["evaluate", str(run), "--predictions", str(scored), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])["scores"]
    for name in ("mood", "order"):
        mine = [row for row in lines(scored) if row["task"] == name]
        right = sum(row["prediction"] == row["answer"] for row in mine)
        assert right / len(mine) == pytest.approx(scores[name]["accuracy"])
        records = lines(bench / name / "validation.jsonl")
        asked = [{"id": f"x{i}", "input": row["input"]} for i, row in enumerate(records)]
        out = tmp_path / f"{name}.jsonl"
        argv = ["predict", str(run), str(write_lines(tmp_path / "new.jsonl", asked))]
        assert main([*argv, "--task", name, "--out", str(out)]) == 0
        found = lines(out)
        assert [{key: row[key] for key in ("id", "input")} for row in found] == asked
        for row, known in zip(found, mine, strict=True):
            assert row["prediction"] == known["prediction"]
            assert row["probabilities"] == pytest.approx(known["probabilities"], abs=1e-5)
            assert sum(row["probabilities"].values()) == pytest.approx(1)
            best = max(row["probabilities"], key=row["probabilities"].__getitem__)
            assert (best, row["probabilities"][best]) == (row["prediction"], row["probability"])


def test_the_probabilities_are_those_of_the_model(trained: Trained) -> None:
    record = {"input": "film good a b"}
    bert = peml.load(trained("bert"))
    inputs = bert.tokenizer("film good a b", return_tensors="pt").to(bert.lm.device)
    with torch.no_grad():
        hidden = bert.model(input_ids=inputs["input_ids"]).last_hidden_state
        assert bert.heads is not None
        wanted = bert.heads("order", hidden, torch.ones_like(inputs["input_ids"])).softmax(-1)[0]
    [found] = peml.predict(bert, [record], "order")
    choices = bert.manifest.choices("order")
    assert found.probabilities == pytest.approx(dict(zip(choices, wanted.tolist(), strict=True)))

    llama = peml.load(trained("llama"))
    ids = llama.tokenizer("film good a b", return_tensors="pt")["input_ids"]
    words = [llama.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no")]
    with torch.no_grad():
        logits = llama.model(input_ids=ids.to(llama.lm.device)).logits[0, -1]
    shares = logits[words].softmax(-1).tolist()
    [found] = peml.predict(llama, [record], "mood")
    assert found.probabilities == pytest.approx(dict(zip(("yes", "no"), shares, strict=True)))


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_row_gets_the_same_answer_alone(family: str, trained: Trained) -> None:
    adapted = peml.load(trained(family))
    records = [{"input": "film " * count + "good a"} for count in (1, 9, 3, 5)]
    together = peml.predict(adapted, records, "mood")
    for record, answer in zip(records, together, strict=True):
        [alone] = peml.predict(adapted, [record], "mood")
        assert alone.probabilities == pytest.approx(answer.probabilities, abs=1e-5)


def test_numbers_texts_and_choices_of_each_record(
    kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["no idea", "4.5 or so"])
    monkeypatch.setattr(
        "peml.answers.evaluation.generate_answers",
        lambda collator, task, batch, beginning: [next(said) for _ in batch],
    )
    rows = write_lines(tmp_path / "rows.jsonl", [{"text": "film good a b c"}, {"text": "a"}])
    capsys.readouterr()
    assert main(["predict", str(kinds / "run"), str(rows), "--task", "stars"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["prediction"] for line in out.splitlines()] == [None, 4.5]
    assert err == "warning: stars: 1 of 2 answers hold no number and are left empty\n"
    monkeypatch.undo()
    [answer] = peml.predict(kinds / "run", [{"input": "a b"}], "echo")
    assert isinstance(answer.prediction, str) and answer.probabilities == {}
    records = [{"input": "a", "from": ["e", "f"]}, {"input": "b", "from": ["no", "a", "yes"]}]
    answers = peml.predict(kinds / "run", records, "own")
    assert [[*answer.probabilities] for answer in answers] == [["e", "f"], ["no", "a", "yes"]]
    with pytest.raises(UserError, match=r"the records, record 1: the choices: no field 'from'"):
        peml.predict(kinds / "run", [{"input": "a"}], "own")


@pytest.mark.parametrize("written", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("read", ["jsonl", "csv", "parquet"])
def test_all_columns_are_kept(read: str, written: str, trained: Trained, tmp_path: Path) -> None:
    rows = [
        {"id": 7, "input": "film good", "note": 'a "quoted", long\nnote', "more": [1, 2]},
        {"id": 8, "input": "plot bad", "note": None, "more": []},
    ]
    source, out = tmp_path / f"in.{read}", tmp_path / f"out.{written}"
    if read == "jsonl":
        write_lines(source, rows)
    elif read == "parquet":
        schema = pyarrow.Table.from_pylist(rows).schema.set(0, pyarrow.field("id", pyarrow.int16()))
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), source)
    else:
        with source.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            writer.writerows([[*[*r.values()][:3], json.dumps(r["more"])] for r in rows])
    argv = ["predict", str(trained("bert")), str(source), "--task", "mood", "--out", str(out)]
    assert main(argv) == 0
    if written == "csv":
        with out.open(newline="") as file:
            found: list[dict[str, Any]] = list(csv.DictReader(file))
    else:
        found = lines(out) if written == "jsonl" else parquet.read_table(out).to_pylist()
    assert [*found[0]] == [*rows[0], "prediction", "probability", "probabilities"]
    texts = "csv" in (read, written)
    for row, given in zip(found, rows, strict=True):
        if texts:
            given = {**given, "id": str(given["id"]), "more": json.dumps(given["more"])}
            given["note"] = given["note"] or ""
        assert {name: row[name] for name in given} == given
        assert row["prediction"] in ("yes", "no")
    if read == written == "parquet":
        assert parquet.read_table(out).schema.field("id").type == pyarrow.int16()


def test_what_is_wrong_is_said_before_the_model_is_loaded_and_nothing_is_lost(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained("llama")
    good = write_lines(tmp_path / "good.jsonl", [{"input": "film good"}])
    (tmp_path / "out.csv").write_text("precious")
    (tmp_path / "bad.csv").write_text("id,text\n1,film\n")
    (tmp_path / "half.jsonl").write_text('{"input": "film"}\n{"input"\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    write_lines(tmp_path / "taken.jsonl", [{"input": "film", "probability": 1}])
    before = digest(tmp_path)
    out = ["--task", "mood", "--out", tmp_path / "out.csv", "--model", tmp_path / "not loaded"]
    for argv, said in (
        ([good, "--task", "moood"], "unknown task 'moood': did you mean 'mood'"),
        ([good], "say with --task which task to answer (there: mood, order)"),
        ([tmp_path / "bad.csv", *out], "bad.csv, line 2: no field 'input' (there: id, text), "),
        ([tmp_path / "half.jsonl", *out], "half.jsonl, line 2: not valid JSON"),
        ([tmp_path / "empty.jsonl", *out], "there is no record to answer"),
        ([tmp_path / "none.csv", *out], "no file"),
        ([tmp_path / "taken.jsonl", *out], "the column 'probability' is there already"),
        ([good, "--task", "mood", "--out", tmp_path / "o.xls"], "unknown file format '.xls'"),
        ([good, "--task", "mood", "--out", tmp_path / "no/o.csv"], "there is no folder"),
        ([good, "--task", "mood", "--out", good], "is the file that is read"),
        ([good, "--task", "mood", "--device", "cuda:77"], "'cuda:77' is not there"),
        ([good, *out], "not loaded"),
    ):
        assert said in refused(capsys, "predict", run, *argv)
    assert "no folder" in refused(capsys, "evaluate", run, "--predictions", tmp_path / "x/y.csv")
    assert digest(tmp_path) == before
    assert main(["predict", str(run), str(good), *map(str, out[:4])]) == 0
    assert (tmp_path / "out.csv").read_text().startswith("input,prediction,")


def test_results_that_cannot_be_written_leave_the_file_that_was_there(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious")
    good = write_lines(tmp_path / "good.jsonl", [{"input": "film good"}])
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left")))
        error = refused(capsys, "predict", trained("llama"), good, "--task", "mood", "--out", out)
    assert "out.csv: cannot be written: No space left" in error
    assert out.read_text() == "precious"


def test_bytes_are_kept_by_parquet_alone(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"input": "film good", "picture": b"\x00", "size": float("nan")}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    argv = ["predict", str(trained("bert")), str(tmp_path / "in.parquet"), "--task", "mood"]
    assert "a field holds bytes" in refused(capsys, *argv)
    assert main([*argv, "--out", str(tmp_path / "out.parquet")]) == 0
    assert parquet.read_table(tmp_path / "out.parquet")["picture"].to_pylist() == [b"\x00"]


def test_a_run_is_moved_with_model_and_data_and_needs_no_data_to_predict(
    bench: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, here = trained("bert"), tmp_path / "here"
    for name in ("bert", "mood", "order"):
        shutil.copytree(bench / name, here / "data" / name)
    tasks = [str(here / "data" / name) for name in ("mood", "order")]
    argv = ["train", "--model", str(here / "data/bert"), "--tasks", *tasks, "--steps", "2"]
    run = here / "runs" / "one"
    argv += ["--prefix-length", "3", "--space", "mlp", "--baseline", "none", "--out", str(run)]
    assert main(argv) == 0
    assert str(tmp_path) not in (run / "adapter" / "peml.json").read_text()
    result = json.loads((run / "result.json").read_text())["columns"]["trained child"]
    there = here.rename(tmp_path / "there")
    capsys.readouterr()
    assert main(["evaluate", str(there / "runs/one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result
    shutil.rmtree(there / "data" / "mood")
    [answer] = peml.predict(there / "runs/one", [{"input": "film good"}], "mood")
    assert [*answer.probabilities] == ["yes", "no"]
    (there / "runs/one").rename(tmp_path / "alone")
    rows = write_lines(tmp_path / "rows.jsonl", [{"input": "film good"}])
    ask = ["predict", tmp_path / "alone", rows, "--task", "mood"]
    assert "say where it is now with --model" in refused(capsys, *ask)
    assert main([str(word) for word in [*ask, "--model", there / "data/bert"]]) == 0
    assert json.loads(capsys.readouterr().out)["prediction"] == answer.prediction


def test_a_run_that_is_moved_alone_finds_model_and_data_where_it_was_told(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bert", "mood"):
        shutil.copytree(bench / name, tmp_path / "data" / name)
    argv = ["train", "--model", "data/bert", "--tasks", "data/mood", "--steps", "2"]
    argv += ["--space", "none", "--baseline", "none", "--out", "runs/one"]
    assert main(argv) == 0
    result = json.loads(Path("runs/one/result.json").read_text())["columns"]["trained child"]
    Path("kept/deep").mkdir(parents=True)
    Path("runs/one").rename("kept/deep/one")
    capsys.readouterr()
    assert main(["evaluate", "kept/deep/one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result
    Path("data/bert").rename("data/other")
    ask = ["evaluate", "kept/deep/one"]
    assert "say where it is now with --model" in refused(capsys, *ask)


def test_an_adapter_of_an_earlier_version_reads_its_tasks_again(
    trained: Trained, tmp_path: Path
) -> None:
    run = trained("llama")
    [new] = peml.predict(run, [{"input": "film good"}], "order")
    folder = shutil.copytree(run, run.parent / "earlier")
    data = json.loads((folder / "adapter/peml.json").read_text())
    for task in data["tasks"]:
        for key in ("template", "choices_field", "longest_answer", "max_new_tokens"):
            del task[key]
    (folder / "adapter/peml.json").write_text(json.dumps({**data, "version": 4}))
    assert peml.predict(folder, [{"input": "film good"}], "order") == [new]


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with counted(5, "rows", Output(), every=0) as add:
        add(2)
        add(3)
    out, err = capsys.readouterr()
    assert not out and err == "2 of 5 rows\n5 of 5 rows\n"
    for output, lines in ((Output(quiet=True), 0), (Output(verbose=True), 1)):
        with counted(5, "rows", output) as add:
            add(5)
        assert capsys.readouterr().err.count("\n") == lines


@pytest.mark.parametrize("wrong", [None, 3, {"input": "a"}, ["a"], [{"input": "a"}, None]])
def test_what_is_no_list_of_records_is_said_before_a_model_is_loaded(
    kinds: Path, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peml.adapters.predict.opened", None)
    with pytest.raises(UserError, match=r"^records: (expected a file or|number \d is no)"):
        peml.predict(kinds / "run", wrong, "echo")


@pytest.mark.parametrize("listed", [[], ["a"], "a"])
def test_a_record_with_too_few_choices_is_refused_by_its_line(kinds: Path, listed: Any) -> None:
    with pytest.raises(UserError, match="the records, record 2: 'from' must be"):
        records = [{"input": "a", "from": ["a", "b"]}, {"input": "b", "from": listed}]
        peml.predict(kinds / "run", records, task="own")


def test_an_answer_without_a_number_is_seen_as_none(kinds: Path) -> None:
    said: list[float | None] = []
    scores = peml.evaluate(
        kinds / "run",
        [kinds / "stars"],
        seen=lambda task, examples, answers: said.extend(a.prediction for a in answers),
        warn=lambda line: None,
    )
    asked = [{"text": f"film {word} a"} for word in ("bad", "good")] * 2
    found = peml.predict(kinds / "run", asked, task="stars", warn=lambda line: None)
    assert said == [answer.prediction for answer in found] and None in said
    assert "stars" in scores
