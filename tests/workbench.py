"""Tiny models, tasks and runs on the disk, for tests of whole commands."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests import ROOT

TASKS = {
    "mood": (("good", "bad"), ("yes", "no")),
    "order": (("a", "b", "c"), ("yes", "no", "maybe")),
}
SMALL = ["--steps", "4", "--prefix-length", "3", "--lora-rank", "2", "--batch-size", "4"]


def write_model(folder: Path, family: str) -> Path:
    """Save a tiny `llama`, `t5` or `bert` as a Hugging Face folder."""
    from tests.peml import tiny

    lm = {"llama": tiny.llama, "t5": tiny.t5, "bert": tiny.bert}[family]()
    lm.model.float().save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def write_task(folder: Path, name: str, train: int = 24, validation: int = 6) -> Path:
    """Write a task whose answer is the second word's."""
    words, choices = TASKS[name]
    folder.mkdir(parents=True)
    rng, known = random.Random(name), set[str]()
    for split, count in (("train", train), ("validation", validation)):
        records = []
        for _ in range(count):
            label = rng.randrange(len(words))
            text = ""
            while not text or text in known:  # no prompt is in two splits
                letters = rng.choices("abc", k=3)
                text = " ".join([rng.choice(["film", "plot"]), words[label], *letters])
            known.add(text)
            records.append({"input": text, "choices": choices, "label": label})
        write_lines(folder / f"{split}.jsonl", records)
    return folder


def write_lines(path: Path, records: Sequence[object]) -> Path:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def digest(folder: Path) -> dict[str, str]:
    """Return the name of everything below a folder, with a hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def events(run: Path, kind: str | None = None) -> list[dict[str, object]]:
    """Read a run's events, without the times."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in event.items() if key not in ("time", "seconds", "began")}
        for event in found
        if kind is None or event["event"] == kind
    ]


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, env=env, check=False
    )
