from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peml.tables.file import read_table
from peml.tables.plan import plan_table
from prefixnas.base.errors import UserError
from tests.peml.tables.files import small, write

RANDOM = {"space": "default", "strategy": "random", "trials": 3}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        plan_table(read_table(path), str(path))
    message = str(refused.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"row": {}}, "unknown key 'row': did you mean 'rows'?"),
        ({"rows": {}}, "key 'rows': name at least one"),
        ({"seeds": [0, 0]}, "key 'seeds': one is named twice: 0, 0"),
        ({"seeds": [0, 100]}, "key 'trial_seed': 100 is one of the seeds"),
        ({"rates": [0.5, 0]}, "key 'rates': must be above 0"),
        ({"rates": [1, 1.0000001]}, "key 'rates': one is named twice: 1, 1"),
        ({"against": ["LoRA", "LoRA"]}, "key 'against': one is named twice: LoRA, LoRA"),
        ({"rows": {" ": {}}}, "key 'rows': a label is a line of text, not ' '"),
        ({"rows": {"a\nb": {}}}, "key 'rows': a label is a line of text, not 'a\\nb'"),
        (
            {"rows": {"Caf\u00e9": {}, "Cafe\u0301": {}}},
            "rows 'Caf\u00e9' and 'Cafe\u0301' would share",
        ),
        (
            {"rows": {"Table.md": {}}},
            "row 'Table.md': its folder would take the place of the table",
        ),
        ({"rows": {"\u00fc" * 101: {}}}, "row '\u00fc\u00fc\u00fc"),
        ({"against": ["LoRa"]}, "key 'against': unknown row 'LoRa': did you mean 'LoRA'?"),
        ({"rows": {"LoRA": {}, "lo-ra": {}, "lo ra": {}}}, "rows 'lo-ra' and 'lo ra' would share"),
        ({"rows": {"LoRA": {"lora_rnak": 3}}}, "row 'LoRA': unknown key 'lora_rnak': did you mean"),
        ({"rows": {"LoRA": {"method": "lroa"}}}, "row 'LoRA': key 'method': unknown method 'lroa'"),
        ({"rows": {"LoRA": {"lora_rank": 0}}}, "row 'LoRA': key 'lora_rank': must be at least 1"),
        ({"rows": {"LoRA": {"steps": 9}}}, "row 'LoRA': the key 'steps' is the same for all rows"),
        ({"rows": {"LoRA": {"seed": 9}}}, "row 'LoRA': the key 'seed' is the table's to set"),
        ({"common": {"tasks": ["x"]}}, "key 'common': the key 'tasks' is the table's to set"),
        ({"common": {"modles": 3}}, "key 'common': unknown key 'modles'"),
        ({"paper": {"rows": {"LoRA": [1.0]}}}, "key 'paper': row 'LoRA' has 1 numbers for 0"),
        ({"paper": {"rows": {"PELM": []}}}, "key 'paper': unknown row 'PELM': did you mean 'PEML'"),
        ({"left_out": {"PEML": "no"}}, "key 'left_out': 'PEML' is a row of the table"),
        ({"rates": [1, 9999]}, "row LoRA, rates x 9999, seed 100: key 'rate_factor': must be"),
        (
            {
                "trial_steps": 2,
                "rows": {"search": {"space": "default", "strategy": "random", "trials": 3}},
            },
            "row search, rates x 1, seed 100: ",
        ),
        ({"metrics": "pearson"}, "key 'metrics': task 'mood': "),
        ({"metrics": {"moods": "accuracy"}}, "key 'metrics': unknown task 'moods'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line(
    bench: Path, tmp_path: Path, more: dict[str, Any], says: str
) -> None:
    table = {**small(bench, against=[], paper={}), **more}
    assert refusal(write(tmp_path / "table.yaml", table)).startswith(says)


def test_two_rows_of_one_label_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text("rows:\n  LoRA: {}\n  LoRA: {method: dora}\n")
    assert "key 'LoRA' occurs twice" in refusal(path)


def test_a_column_means_the_same_in_every_row(bench: Path, tmp_path: Path) -> None:
    task = f"name: mood\nsource: {bench / 'mood'}\nmetrics: [macro_f1]\n"
    (tmp_path / "mood.yaml").write_text(task)
    others = [str(tmp_path / "mood.yaml"), str(bench / "order")]
    rows = {"LoRA": {}, "other": {"tasks": others}}
    path = write(tmp_path / "table.yaml", small(bench, rows=rows, paper={}))
    assert "row 'other': metrics of task 'mood': macro_f1 here, and accuracy" in refusal(path)
    rows = {"LoRA": {}, "other": {"tasks": others[1:]}}
    path = write(tmp_path / "table.yaml", small(bench, rows=rows, paper={}))
    assert "row 'other': its tasks are order, and the columns are mood, order" in refusal(path)


@pytest.mark.parametrize("name", ["average", "row", "seeds", "steps", "validation", "weights"])
def test_no_task_has_the_name_of_another_column(bench: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "task.yaml").write_text(f"name: {name}\nsource: {bench / 'mood'}\n")
    tasks = [str(tmp_path / "task.yaml"), str(bench / "order")]
    path = write(tmp_path / "table.yaml", small(bench, tasks=tasks))
    assert refusal(path).startswith(f"task '{name}': another column of the table has this name")


def test_variables_are_replaced(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH", str(bench))
    monkeypatch.delenv("NOT_SET", raising=False)
    tasks = ["$BENCH/mood", "${NOT_SET:-${BENCH}/order}", "${NOT_SET:-$BENCH/order}"]
    path = write(tmp_path / "table.yaml", small(bench, tasks=[tasks[0], tasks[2]]))
    assert read_table(path).tasks == [str(bench / "mood"), str(bench / "order")]
    path = write(tmp_path / "table.yaml", small(bench, tasks=["$NOT_SET/mood"]))
    assert refusal(path).startswith("key 'tasks': the variable NOT_SET is not set")


def test_common_keys_that_a_row_does_not_have_are_left_out(bench: Path, tmp_path: Path) -> None:
    rows = {"LoRA": {}, "AdaLoRA": {"method": "adalora"}, "Poly": {"method": "poly"}}
    table = small(bench, rows=rows, paper={})
    table["common"] |= {"skills": 3}
    file = read_table(write(tmp_path / "table.yaml", table))
    lora, adalora, poly = plan_table(file, "table").rows
    assert "skills" not in lora.values and "skills" not in adalora.values
    assert poly.values["skills"] == 3
    assert {row.values["space"] for row in (lora, adalora, poly)} == {"none"}
    assert {row.values["strategy"] for row in (lora, adalora, poly)} == {"fixed"}


def test_metrics_of_the_table_win(bench: Path, tmp_path: Path) -> None:
    table = small(bench, metrics={"order": "macro_f1"})
    planned = plan_table(read_table(write(tmp_path / "table.yaml", table)), "table")
    assert [column.metrics for column in planned.columns] == [("accuracy",), ("macro_f1",)]
    table = small(bench, metrics="macro_f1")
    planned = plan_table(read_table(write(tmp_path / "table.yaml", table)), "table")
    assert [column.metrics for column in planned.columns] == [("macro_f1",)] * 2
