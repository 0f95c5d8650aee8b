"""What is in a file is what is in its records."""

from __future__ import annotations

import csv
import datetime
import io
import json
import tempfile
from decimal import Decimal
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from peml.tasks.files import FORMATS, read_files
from peml.tasks.load import load_task
from peml.tasks.values import Cell, NoText, text_of
from prefixnas.base.errors import UserError

LOOKS_LIKE_MORE = [
    *("2021-03-01", "2021-03-01T10:00:00Z", "12:30", "007", "1e-1", "0.10", "NaN", "nan", "null"),
    *("yes", "true", "True", "123456789012345678901234567890", "-0", "+1", "1_000", "None", "NA"),
    *('"quoted"', '"', "it's", "a\\tb", " both ", "\u2028", "\x85", "\ufeff", "\x1c", "#", "坏"),
]
texts = st.sampled_from(LOOKS_LIKE_MORE) | st.text(max_size=20)
of_one_line = texts.filter(lambda text: not {"\t", "\n", "\r"} & {*text})


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a table with the plainest writer of its format."""
    names = list(rows[0])
    match path.suffix:
        case ".json":
            data = json.dumps(rows, ensure_ascii=False)
        case ".jsonl" | ".ndjson":
            data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        case ".csv":
            lines = io.StringIO()
            writer = csv.DictWriter(lines, names, quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)
            data = lines.getvalue()
        case ".tsv":
            table = [names, *([row[name] for name in names] for row in rows)]
            data = "".join("\t".join(cells) + "\n" for cells in table)
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
            return path
    path.write_bytes(data.encode())
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None)
@given(data=st.data())
def test_every_text_comes_back_unchanged(suffix: str, data: st.DataObject) -> None:
    cells = of_one_line if suffix == ".tsv" else texts
    columns = data.draw(
        st.lists(st.sampled_from(["text", "label", "more"]), min_size=2, unique=True)
    )
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(columns, cells)), min_size=1))
    with tempfile.TemporaryDirectory() as folder:
        records = read_files([write(Path(folder, f"x{suffix}"), rows)])
    assert list(records.rows) == rows


@pytest.mark.parametrize("suffix", FORMATS)
@settings(deadline=None)
@given(data=st.data())
def test_every_text_reaches_the_model_unchanged(suffix: str, data: st.DataObject) -> None:
    """A task shows all texts: as prompts, as answers that are written, and as choices."""
    cells = of_one_line if suffix == ".tsv" else texts
    cells = cells.filter(lambda text: text == text.strip() != "")
    choices = data.draw(st.lists(cells, min_size=2, max_size=4, unique=True))
    row = st.fixed_dictionaries({"text": cells, "label": st.sampled_from(choices)})
    rows = data.draw(st.lists(row, min_size=2, max_size=8))
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "validation"):
            write(Path(folder, f"{split}{suffix}"), rows)
        common = {"name": "t", "source": folder, "template": "{text}"}
        written = load_task({**common, "kind": "generation"}).splits["validation"]
        chosen = load_task({**common, "choices": choices}).splits["validation"]
    assert [(e.prompt, e.answer) for e in written] == [(r["text"], r["label"]) for r in rows]
    assert [(e.prompt, e.answer) for e in chosen] == [(r["text"], r["label"]) for r in rows]
    assert all(e.choices[int(e.label)] == e.answer for e in chosen)


numbers = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?\Z")


@settings(deadline=None)
@given(numbers)
def test_a_number_of_json_is_written_as_it_was(number: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        path.write_text(f'{{"x": {number}}}\n')
        value = read_files([path]).rows[0]["x"]
    assert text_of(value) == number
    assert float(value) == float(number)


@settings(deadline=None)
@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-1000, max_value=1000)
)
def test_a_decimal_of_parquet_is_a_number(number: Decimal) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.parquet")
        parquet.write_table(pyarrow.table({"x": [number]}), path)
        value = read_files([path]).rows[0]["x"]
    assert isinstance(value, float)
    assert value == float(number)
    assert text_of(value) == f"{number:f}"


def test_types_of_json_stay() -> None:
    wanted = {"a": True, "b": None, "c": [1, "1"], "d": {"e": 0.5}, "f": 10**30, "g": ""}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        path.write_text(json.dumps(wanted))
        (row,) = read_files([path]).rows
    assert row == wanted
    assert [type(value) for value in (row["a"], row["f"])] == [bool, int]


def test_values_as_text(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"x": [true, null, 1.50, "ä", {"y": -0}]}')
    assert text_of(read_files([path]).rows[0]["x"]) == '[true, null, 1.50, "ä", {"y": -0}]'
    for value in (float("nan"), float("-inf"), b"bytes", [float("nan")]):
        with pytest.raises(NoText):
            text_of(value)


def test_types_of_parquet(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "day": [datetime.date(2021, 3, 1)],
            "single": pyarrow.array([0.1], pyarrow.float32()),
            "double": [0.1],
            "kind": pyarrow.array(["good"]).dictionary_encode(),
            "list": [["a", "b"]],
            "inner": [{"n": Decimal("1.50")}],
            "none": [None],
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    (row,) = read_files([tmp_path / "x.parquet"]).rows
    assert {name: text_of(value) for name, value in row.items()} == {
        "day": "2021-03-01",
        "single": "0.1",
        "double": "0.1",
        "kind": "good",
        "list": '["a", "b"]',
        "inner": '{"n": 1.50}',
        "none": "null",
    }


def test_label_names_of_a_parquet_file(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
    )
    found = datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features=features)
    found.to_parquet(tmp_path / "x.parquet")
    assert read_files([tmp_path / "x.parquet"]).class_names == {"label": ("no", "yes")}


def test_cells_are_texts_that_may_be_asked_for_a_number(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b,\n1.50,,ignored\n")
    (row,) = read_files([tmp_path / "x.csv"]).rows
    assert row == {"a": "1.50", "b": ""}
    assert isinstance(row["a"], Cell)


def test_a_column_may_turn_to_text_late(tmp_path: Path) -> None:
    lines = [*map(str, range(11_000)), "A0001"]
    (tmp_path / "x.csv").write_text("label\n" + "".join(f"{line}\n" for line in lines))
    assert [row["label"] for row in read_files([tmp_path / "x.csv"]).rows] == lines


def test_a_long_cell(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "x.csv").write_text("a\n" + "x" * 200_000 + "\n")
    assert len(read_files([tmp_path / "x.csv"]).rows[0]["a"]) == 200_000
    assert csv.field_size_limit() == before


def test_quotes_mean_nothing_in_tsv(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes(b'text\tlabel\r\n"open\t1\r\n""two""\t2\r\n')
    rows = read_files([tmp_path / "x.tsv"]).rows
    assert [row["text"] for row in rows] == ['"open', '""two""']
    assert [row["label"] for row in rows] == ["1", "2"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n", encoding="utf-8-sig")
    assert read_files([tmp_path / "x.csv"]).rows == [{"a": "1"}]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ("a\nb\nä\n".encode("latin-1"), "line 3: byte 0xe4 is not UTF-8; save"),
        ("a\n1\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8 (it begins like UTF-16)"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, data: bytes, part: str) -> None:
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_files([tmp_path / "x.csv"])
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("x.jsonl", '\n{"a": "1"}\n \n\n{"a": "2"}', [2, 5]),
        ("x.json", '[\n\n{"a":\n"1"}, {"a": "2"}]', [3, 4]),
        ("x.json", '{"a": "1"}\n\n{"a": "2"}\n', [1, 3]),
        ("x.csv", 'a,b\n\n"1\n",x\n2,y\n', [3, 5]),
        ("x.tsv", "a\tb\n\n1\tx\n2\ty\n", [3, 4]),
    ],
)
def test_records_know_their_lines(
    tmp_path: Path, name: str, content: str, lines: list[int]
) -> None:
    (tmp_path / name).write_text(content)
    records = read_files([tmp_path / name])
    places = [records.where(index) for index in range(len(records.rows))]
    assert places == [f"{tmp_path / name}, line {line}" for line in lines]


def test_joined_files_keep_their_own_lines(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("x\n1\n2\n")
    records = read_files([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert records.where(2) == f"{tmp_path / 'b.csv'}, line 2"


def test_formats_hold_the_same_records(tmp_path: Path) -> None:
    import pandas

    wanted = [{"text": "a, b", "label": 1}, {"text": "NA", "label": 0}]
    texts = [{key: str(value) for key, value in row.items()} for row in wanted]
    frame = pandas.DataFrame(wanted)
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    frame.to_json(tmp_path / "x.json", orient="records")
    for suffix in ("csv", "tsv", "parquet", "jsonl", "json"):
        rows = read_files([tmp_path / f"x.{suffix}"]).rows
        assert [{key: str(value) for key, value in row.items()} for row in rows] == texts, suffix


def test_files_are_joined_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"text": "{name}"}}\n')
    rows = read_files([tmp_path / "b.jsonl", tmp_path / "a.jsonl"]).rows
    assert [row["text"] for row in rows] == ["b", "a"]


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "old"}\n')
    assert read_files([path]).rows[0]["text"] == "old"
    path.write_text('{"text": "fresh"}\n')
    assert read_files([path]).rows[0]["text"] == "fresh"


def test_reading_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    (tmp_path / "a.jsonl").write_text('{"text": "old"}\n')
    read_files([tmp_path / "a.jsonl"])
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.jsonl", '{"x": 1}\n{"x": \n', "line 2: not valid JSON"),
        ("a.jsonl", '{"x": 1}\n3\n', "line 2: must be a JSON object"),
        ("a.jsonl", '\n\n{"x": 1}\n\n{"x"', "line 5: not valid JSON"),
        ("a.jsonl", '{"x": 1} {"x": 2}', "line 1: not valid JSON: something follows"),
        ("a.jsonl", '{"x": 1, "x": 2}', "line 1: key 'x' occurs twice"),
        ("a.jsonl", r'{"x": "\ud800"}', "line 1: a text holds half of a surrogate pair"),
        ("a.jsonl", "[" * 100_000, "line 1: nested too deeply"),
        ("a.json", '[{"x": 1},\n {"x": }]', "line 2: not valid JSON"),
        ("a.json", '[\n{"x": 1}\n 5]', "line 2: not valid JSON: a ',' or ']'"),
        ("a.json", '[{"x": 1},\n7]', "line 2: must be a JSON object"),
        ("a.json", '[{"x": 1}', "not valid JSON: a ',' or ']' must follow"),
        ("a.json", '[{"x": 1},]', "no record follows the last ','"),
        ("a.json", "[] 1", "something follows the end of the list"),
        ("a.json", '{"data":\n[]}', "must be a list of objects, or one object a line"),
        ("a.csv", "a,b\n\n1,2\n3\n", "line 4: 1 cells under 2 names"),
        ("a.csv", 'a,b\n"1\n1",2\n3,4,5\n', "line 4: 3 cells under 2 names"),
        ("a.csv", 'a,b\n1,2\n"3,4\n\n', "line 3: not valid CSV"),
        ("a.csv", 'a,b\n"1"2,3\n', "line 2: not valid CSV"),
        ("a.csv", "a,a\n1,2\n", "line 1: two columns are named 'a'"),
        (
            "a.csv",
            "a;b\n1;2\n",
            "line 1: its one column is 'a;b': between cells must stand commas, ",
        ),
        ("a.csv", "\na\tb\n1\t2\n", "line 2: its one column is 'a\\tb': between cells must stand"),
        ("a.tsv", "a,b\n1,2\n", "must stand tabs, not commas"),
        ("a.tsv", 'a\tb\n"1\t1"\t2\n', "line 2: 3 cells under 2 names (a tab ends a cell"),
        ("a.xml", "<x/>", "unknown file format '.xml'"),
        ("a.parquet", "no parquet", "a.parquet: not a Parquet file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str, part: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        read_files([tmp_path / name])
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"no file .*trian.csv'.*did you mean 'train.csv'"):
        read_files([tmp_path / "trian.csv"])


def test_one_column_may_hold_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("input\na; b\nc; d\n")
    assert [row["input"] for row in read_files([path]).rows] == ["a; b", "c; d"]
