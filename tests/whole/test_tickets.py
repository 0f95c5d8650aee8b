"""The README's "Your own data": tickets in a CSV, four commands, labels for new tickets."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import peml.__main__
from tests import ROOT

TEAMS = {
    "billing": ["invoice", "charged", "refund", "card"],
    "sales": ["discount", "price", "licence", "offer"],
    "technical": ["crash", "error", "login", "slow"],
}
SMALL_TALK = [
    "hello",
    "please",
    "help",
    "me",
    "with",
    "my",
    "the",
    "a",
    "again",
    "today",
    "since",
    "monday",
    "thanks",
    "we",
    "have",
]


def ticket(team: str, rng: random.Random) -> str:
    """Some small talk around two words of the team's."""
    words = [*rng.sample(SMALL_TALK, 5), *rng.sample(TEAMS[team], 2)]
    rng.shuffle(words)
    return " ".join(words)


def write_model(folder: Path) -> None:
    """Save a tiny encoder that knows the words."""
    words = ["[PAD]", "[UNK]", "[CLS]", *SMALL_TALK, *(w for team in TEAMS.values() for w in team)]
    words = list(dict.fromkeys(words))
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", eos_token="[CLS]"
    ).save_pretrained(folder)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "max_position_embeddings": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)


def write_rows(path: Path, names: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def section() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition("## Your own data\n")[2].partition("\n## ")[0]


def test_new_tickets_are_labelled_by_the_four_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("models/bert"))
    rng = random.Random(0)
    teams = [rng.choice(sorted(TEAMS)) for _ in range(240)]
    header = re.findall(r"```csv\n(.*)\n", section())[0].split(",")
    assert header == ["id", "input", "label"]
    known = [[str(n), ticket(team, rng), team] for n, team in enumerate(teams[:180])]
    write_rows(Path("tickets.csv"), header, known)
    fresh = [[f"n{n}", ticket(team, rng)] for n, team in enumerate(teams[180:])]
    write_rows(Path("new.csv"), header[:2], fresh)

    [block] = re.findall(r"```bash\n(.*?)```", section(), re.DOTALL)
    commands = [line.split() for line in block.splitlines()]
    assert [command[:2] for command in commands] == [
        ["peml", name] for name in ("tasks", "train", "evaluate", "predict")
    ]
    said = ""
    for command in commands:
        quick = ["--baseline", "none", "--lora-rank", "4"] if command[1] == "train" else []
        assert peml.__main__.main([*command[1:], *quick]) == 0
        said += capsys.readouterr().out
    assert "one file, split by a fixed seed: train 130, selection 14, validation 36" in said
    assert "its labels repeat, so they are the choices: billing, sales, technical" in said

    with Path("labelled.csv").open(newline="") as file:
        labelled = list(csv.DictReader(file))
    assert [[row["id"], row["input"]] for row in labelled] == fresh
    right = [row["prediction"] == team for row, team in zip(labelled, teams[180:], strict=True)]
    assert sum(right) / len(right) > 0.9
