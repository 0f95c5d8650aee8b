"""Every reader of files, with a small whole file of each kind, and what is done to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"
"""Files that once were a fault, `READER/...`: they are read first."""


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes:
        name: Of its kind, and of its folder in the corpus.
        file: Where it lies in the folder that is read; other files may lie beside it.
        read: Reads it, or what it belongs to, in the way that commands do.
        mended: Has the folder agree again with the mutated file: what finds damage by a hash alone
            would let nothing else be tried.
    """

    name: str
    file: Path
    read: Callable[[], object]
    mended: Callable[[], None] = lambda: None


def readers(place: Path) -> list[Reader]:
    """Return all readers, on a folder that `tests.faults.outcomes.Place` has filled."""
    return [*_of_yaml(place), *_of_tasks(place), *_of_runs(place), *_of_models(place)]


def _of_yaml(place: Path) -> list[Reader]:
    from prefixnas.experiments.experiment import load_experiment
    from prefixnas.launch.config import read_config
    from prefixnas.launch.plan import plan_run, resolve_run
    from prefixnas.network.supernet import check_operations
    from prefixnas.run.objective import fit_space
    from prefixnas.space.architecture import Architecture
    from prefixnas.space.loading import load_space
    from prefixnas.testing import ToyObjective

    folder = place / "yaml"
    folder.mkdir()
    space, experiment = folder / "space.yaml", folder / "study.yaml"
    space.write_text(_SPACE)
    shutil.copy(place / "study.yaml", experiment)
    config, architecture = folder / "config.yaml", folder / "architecture.yaml"
    shutil.copy(place / "kept" / "run" / "config.yaml", config)
    shutil.copy(place / "kept" / "run" / "architecture.yaml", architecture)
    of_run = load_space(str(place / "kept" / "run" / "space.yaml"))
    toy = ToyObjective()

    def read_space() -> None:
        found = fit_space(load_space(str(space)), toy)
        check_operations(found, toy.width)

    return [
        Reader("space", space, read_space),
        Reader("experiment", experiment, lambda: load_experiment(experiment)),
        Reader(
            "configuration",
            config,
            lambda: plan_run(resolve_run([(str(config), read_config(config))])),
        ),
        Reader(
            "architecture",
            architecture,
            lambda: of_run.validate(Architecture.load(architecture)),
        ),
        *_of_comparisons(place),
    ]


def _of_comparisons(place: Path) -> list[Reader]:
    """Return what commands read of a comparison and of a transfer, without running anything."""
    keys = {"objective": "tabular", "space": ["tabular"], "strategies": ["darts"], "budget": 4}
    keys |= {"trials": 2}
    group = {"objective": "tabular", "space": "tabular", "steps": 4}
    transfer = {"groups": {"a": group, "b": {**group, "seed": 1}}, "seeds": [0]}
    found = []
    for name, data in (("comparison", keys), ("transfer", transfer)):
        out = place / name
        out.mkdir()
        (out / f"{name}.yaml").write_text(yaml.safe_dump(data))
        command = {"comparison": "compare"}.get(name, name)
        argv = [command, "--resume", "--dry-run", "--out", str(out)]
        found.append(Reader(name, out / f"{name}.yaml", _command("prefixnas", argv)))
    return found


def _of_tasks(place: Path) -> list[Reader]:
    from peml.tasks.load import load_tasks

    records = [json.loads(line) for line in (place / "mood" / "train.jsonl").open()]
    flat = [{"input": r["input"], "label": r["choices"][r["label"]]} for r in records]
    texts = {
        ".jsonl": "".join(json.dumps(record) + "\n" for record in records),
        ".json": json.dumps(records, indent=1),
        ".csv": "input,label\n" + "".join(f'"{r["input"]}",{r["label"]}\n' for r in flat),
        ".tsv": "input\tlabel\n" + "".join(f"{r['input']}\t{r['label']}\n" for r in flat),
    }
    found = []
    for suffix, text in texts.items():
        folder = place / f"task{suffix}"
        folder.mkdir()
        (folder / f"validation{suffix}").write_text(text)
        file = folder / f"train{suffix}"
        file.write_text(text)
        found.append(Reader(f"task{suffix}", file, lambda folder=folder: load_tasks([str(folder)])))
    return [*found, _parquet(place, records), _task_file(place)]


def _parquet(place: Path, records: Sequence[Mapping[str, Any]]) -> Reader:
    import pyarrow
    from pyarrow import parquet

    from peml.tasks.load import load_tasks

    folder = place / "task.parquet"
    folder.mkdir()
    for split in ("train", "validation"):
        parquet.write_table(pyarrow.Table.from_pylist(list(records)), folder / f"{split}.parquet")
    return Reader("task.parquet", folder / "train.parquet", lambda: load_tasks([str(folder)]))


def _task_file(place: Path) -> Reader:
    from peml.tasks.load import load_tasks

    file = place / "task.yaml"
    file.write_text(
        f"source: {place / 'mood'}\nname: mine\ntemplate: 'Say {{input}} :'\nmetrics: [accuracy]\n"
        "gamma: 0.2\n"
    )
    return Reader("task file", file, lambda: load_tasks([str(file)]))


def _of_runs(place: Path) -> list[Reader]:
    from prefixnas.experiments.trial import read_trial
    from prefixnas.run.checkpoint import load_checkpoint
    from prefixnas.run.record import read_record

    run = place / "read"
    shutil.copytree(place / "kept" / "run", run)
    (run / "trial.json").write_text(json.dumps(_TRIAL))
    show, report = (_command("prefixnas", [name, str(run)]) for name in ("show", "report"))
    files = {
        "events": "metrics.jsonl",
        "result": "result.json",
        "kept configuration": "config.yaml",
    }
    files |= {"kept space": "space.yaml", "kept architecture": "architecture.yaml"}
    state = run / "checkpoint" / "state.json"
    return [
        *(
            Reader(name, run / file, lambda: (read_record(run), show()))
            for name, file in files.items()
        ),
        Reader("events for the page", run / "metrics.jsonl", report),
        Reader("result for the page", run / "result.json", report),
        Reader("answers for the page", run / "answers.json", report),
        Reader("trial", run / "trial.json", lambda: read_trial(run)),
        Reader("checkpoint", state, lambda: load_checkpoint(state.parent)),
        Reader("journal", _journal(place), lambda: _trials(place / "journal")),
    ]


def _journal(place: Path) -> Path:
    from prefixnas.experiments.experiment import load_experiment
    from prefixnas.experiments.study import Study

    study = Study.open(load_experiment(place / "study.yaml"), place / "journal")
    study.claim()
    return place / "journal" / "study.journal"


def _trials(folder: Path) -> object:
    from prefixnas.experiments.experiment import load_experiment
    from prefixnas.experiments.study import Study

    return Study.open(load_experiment(folder.parent / "study.yaml"), folder).rows()


def _of_models(place: Path) -> list[Reader]:
    import peml
    from peml.adapters.files import hashes
    from peml.model.load import load_language_model
    from peml.model.quiet import quiet_libraries

    quiet_libraries()
    model, adapter = place / "model", place / "kept" / "copy" / "adapter"
    shutil.copytree(place / "llama", model)
    shutil.copytree(place / "kept" / "run" / "adapter", adapter)
    manifest = adapter / "peml.json"
    whole = manifest.read_text()

    def hashed() -> None:
        manifest.write_text(json.dumps({**json.loads(whole), "files": hashes(adapter)}))

    inside = {path.name: path for path in sorted(model.iterdir()) if path.suffix == ".json"}
    saved = {name: adapter / "lora" / name for name in ("adapter_config.json",)}
    tensors = [adapter / "prefix.safetensors", adapter / "lora" / "adapter_model.safetensors"]
    return [
        *(
            Reader(f"model {n}", path, lambda: load_language_model(str(model)))
            for n, path in inside.items()
        ),
        Reader(
            "model tensors", model / "model.safetensors", lambda: load_language_model(str(model))
        ),
        Reader("manifest", manifest, lambda: peml.load(adapter)),
        *(
            Reader(f"adapter {n}", path, lambda: peml.load(adapter), hashed)
            for n, path in saved.items()
        ),
        *(
            Reader(f"adapter {path.name}", path, lambda: peml.load(adapter), hashed)
            for path in tensors
        ),
    ]


def _command(program: str, argv: Sequence[str]) -> Callable[[], object]:
    """Run a command here; what it refuses is raised as it is by what it calls."""

    def run() -> None:
        from prefixnas.__main__ import _main

        with redirect_stdout(StringIO()):
            _main(argv)

    assert program == "prefixnas"
    return run


_SPACE = """
name: mine
sizes: {depth: 2}
stack:
  layers: 2
  cell:
    - {linear: {bias: true}}
    - choice: {key: activation, options: [relu, tanh, {dropout: 0.1}]}
    - sum: [layer_norm, identity]
"""

_TRIAL = {
    "score": 0.5,
    "validation": 0.4,
    "epochs": [0.1, 0.5],
    "steps": 4,
    "parameters": 10,
    "architecture": {"a": "tanh"},
    "pruned": False,
}

# What is done to a file

_NASTY = [
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[31m", b"\n", b"\t", b'"', b"'", b"{", b"]"),
    *(b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"9" * 400, b"-0.0", b"1e-400"),
    *(b"[]", b"{}", b"~", b"2001-01-01", b"!!python/name:os.system", b"&a [*a]", b"<<: *a", b"%"),
    *(b"[" * 2000, b"a" * 70000, b"\xe2\x80\xa8", b"\\ud800", b"../../etc", b"1_000", b"0x10"),
]
"""What a mutation puts somewhere."""

_ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**63, 10**400, -(10**10), 0.5, -0.0, 1e300, "", "x", "\x00"),
    *("\x1b[31m", "a" * 5000, "../..", "é", [], {}, [[]], {"": None}, {"a": {"b": [1]}}, [1, "x"]),
    *(float("nan"), float("inf"), "none", "1", "embedded:llama", ["linear"], [None], {"a": 1}),
]
"""What a mutation puts in the place of a value."""

Mutation = Callable[[bytes], bytes]

_places = st.integers(0, 10**6)


def _bytewise(data: bytes, kind: str, at: int, length: int, nasty: bytes) -> bytes:
    at = at % (len(data) + 1)
    end = min(len(data), at + length)
    if kind == "flip" and at < len(data):
        return data[:at] + bytes([data[at] ^ (1 << length % 8)]) + data[at + 1 :]
    part = {
        "cut": data[:at],
        "drop": data[:at] + data[end:],
        "insert": data[:at] + nasty + data[at:],
    }
    part |= {"replace": data[:at] + nasty + data[end:], "double": data[:end] + data[at:]}
    return part.get(kind, data)


bytewise = st.builds(
    lambda *given: lambda data: _bytewise(data, *given),
    st.sampled_from(["flip", "cut", "drop", "insert", "replace", "double"]),
    _places,
    st.integers(1, 40),
    st.sampled_from(_NASTY),
)
"""Mutations of bytes."""


def _valuewise(data: bytes, name: str, at: int, odd: Any, kind: str) -> bytes:
    lines = data.split(b"\n") if name.endswith("jsonl") else [data]
    line = at % max(1, len(lines))
    try:
        loads = yaml.safe_load if name.endswith(".yaml") else json.loads
        tree = loads(lines[line])
        tree = _changed(tree, at // max(1, len(lines)), odd, kind)
        text = yaml.safe_dump(tree) if name.endswith(".yaml") else json.dumps(tree)
    except (ValueError, yaml.YAMLError, RecursionError):
        return data
    lines[line] = text.encode()
    return b"\n".join(lines)


def _changed(tree: Any, at: int, odd: Any, kind: str) -> Any:
    """Change one value of a tree, the one that is `at` in its order."""
    spots: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, inner in list(items):
            spots.append((node, key))
            if isinstance(inner, dict | list):
                visit(inner)

    if not isinstance(tree, dict | list) or not tree:
        return odd
    visit(tree)
    node, key = spots[at % len(spots)]
    if kind == "drop":
        del node[key]
    elif kind == "rename" and isinstance(node, dict):
        node[str(key) + "s"] = node.pop(key)
    else:
        node[key] = odd
    return tree


def mutations(name: str) -> st.SearchStrategy[Mutation]:
    """Return mutations of a file of that name: of its bytes, and of its values if it has some."""
    valuewise = st.builds(
        lambda *given: lambda data: _valuewise(data, name, *given),
        _places,
        st.sampled_from(_ODD),
        st.sampled_from(["put", "put", "put", "drop", "rename"]),
    )
    one = bytewise if name.endswith((".csv", ".tsv", ".parquet")) else bytewise | valuewise
    if name.endswith(".safetensors"):
        one = bytewise | _headers
    return st.lists(one, min_size=1, max_size=3).map(_after_each_other)


def _after_each_other(several: Sequence[Mutation]) -> Mutation:
    def all_of_them(data: bytes) -> bytes:
        for mutation in several:
            data = mutation(data)
        return data

    return all_of_them


def _header(data: bytes, at: int, odd: Any, kind: str) -> bytes:
    """Change a value in the header of a safetensors file, whose length stays right."""
    size = int.from_bytes(data[:8], "little")
    changed = _valuewise(data[8 : 8 + size], ".json", at, odd, kind)
    return len(changed).to_bytes(8, "little") + changed + data[8 + size :]


_headers = st.builds(
    lambda *given: lambda data: _header(data, *given),
    _places,
    st.sampled_from(_ODD),
    st.sampled_from(["put", "drop", "rename"]),
)
