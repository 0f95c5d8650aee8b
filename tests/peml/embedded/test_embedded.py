"""The embedded suite and models: reproducible, balanced, disjoint, small, and not yet solved."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import peml.embedded
from peml.embedded import corpus, lexicon, suite
from peml.embedded.grammar import OBJECTS
from prefixnas.base.errors import UserError
from tests import forked

HERE = Path(peml.embedded.__file__).parent
ROOT = HERE.parents[1]
FAMILIES = {"llama": AutoModelForCausalLM, "t5": AutoModelForSeq2SeqLM}


def load(
    family: str, folder: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    folder = folder or HERE / family
    model = FAMILIES[family].from_pretrained(folder, local_files_only=True)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def all_records(count: int, seed: int = 0) -> list[tuple[str, str, dict[str, object]]]:
    return [
        (task, split, record)
        for task in suite.TASKS
        for split in suite.SPLITS
        for record in suite.generate(task, split, count, seed)
    ]


def digest_in_fresh_process(hash_seed: str) -> str:
    program = (
        "import hashlib, itertools, json\n"
        "from peml.embedded import corpus, suite\n"
        "records = [suite.generate(t, s, 40, 3) for t in suite.TASKS for s in suite.SPLITS]\n"
        "records.append(list(itertools.islice(corpus.documents(3), 300)))\n"
        "records.append(corpus.vocabulary())\n"
        "print(hashlib.sha256(json.dumps(records).encode()).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout.strip()


def test_suite_and_corpus_are_the_same_in_every_process() -> None:
    records: list[object] = [
        suite.generate(task, split, 40, 3) for task in suite.TASKS for split in suite.SPLITS
    ]
    records.append(list(itertools.islice(corpus.documents(3), 300)))
    records.append(corpus.vocabulary())
    here = hashlib.sha256(json.dumps(records).encode()).hexdigest()
    assert {digest_in_fresh_process(seed) for seed in ("0", "4711")} == {here}


def test_a_longer_list_begins_with_the_shorter_one_and_seeds_differ() -> None:
    for task in suite.TASKS:
        assert suite.generate(task, "train", 50)[:20] == suite.generate(task, "train", 20)
        assert suite.generate(task, "train", 20, 1) != suite.generate(task, "train", 20, 2)


@settings(max_examples=25, deadline=None)
@given(
    task=st.sampled_from(suite.TASKS),
    split=st.sampled_from(suite.SPLITS),
    count=st.integers(0, 60),
    seed=st.integers(0, 2**31),
)
def test_labels_are_balanced_and_examples_are_whole(
    task: str, split: str, count: int, seed: int
) -> None:
    records = suite.generate(task, split, count, seed)
    assert len(records) == count
    choices = list(suite.FORMS[task].choices)
    labels = [record["label"] for record in records]
    tally = [labels.count(label) for label in range(len(choices))]
    assert sum(tally) == count
    assert max(tally) - min(tally) <= 1
    for record in records:
        assert set(record) == {"input", "choices", "label"}
        assert record["choices"] == choices
        assert all(choice in record["input"] for choice in choices)
        assert "{" not in record["input"]
    assert len({record["input"] for record in records}) == count


def sentences(text: str) -> list[str]:
    parts = re.split(r"[.?:/\n]+", text.lower())
    return [part.strip() for part in parts if part.strip()]


def told(record: dict[str, object]) -> frozenset[str]:
    """The sentences of an example, without its labels and its closing question."""
    lines = str(record["input"]).split("\n")[:-1]
    return frozenset(s for line in lines for s in sentences(line.partition(": ")[2]))


def test_splits_share_no_example_whatever_the_seed_and_order() -> None:
    owner: dict[tuple[str, frozenset[str]], str] = {}
    for seed in range(3):
        for task, split, record in all_records(400, seed):
            assert owner.setdefault((task, told(record)), split) == split
    assert len(owner) > 10_000


def test_the_pretraining_corpus_holds_no_example_of_a_split() -> None:
    examples = {told(record) for _, _, record in all_records(2000)}
    by_sentence: dict[str, set[int]] = {}
    closings = tuple(
        re.escape(form.prompt.lower().rpartition("\n")[2]) for form in suite.FORMS.values()
    )
    for index, document in enumerate(itertools.islice(corpus.documents(0), 30_000)):
        text = f"{document.prompt} {document.answer}".lower()
        assert not re.search("|".join(closings), text)
        for prefix in ("compare: ", "known: "):
            text = text.removeprefix(prefix)
        for sentence in sentences(text.replace("also:", ".").replace("ask:", ".")):
            by_sentence.setdefault(sentence, set()).add(index)
    shared = [
        example
        for example in examples
        if set.intersection(*(by_sentence.get(sentence, set()) for sentence in example))
    ]
    assert not shared
    # The check can fail: the corpus does hold sentences of the examples, in other company.
    assert any(sentence in by_sentence for example in examples for sentence in example)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sentimant", "train", 3), "unknown embedded task 'sentimant': did you mean 'sentiment'?"),
        (("sentiment", "test", 3), "unknown split 'test'"),
        (("sentiment", "train", -1), "count must be at least 0, got -1"),
    ],
)
def test_mistakes_are_named(arguments: tuple[str, str, int], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        suite.generate(*arguments)


def concept(word: str) -> tuple[str, int] | None:
    """The kind and row of a word, whatever its form; None for one without synonyms here."""
    for index, verbs in enumerate(lexicon.VERBS):
        if any(word in verb for verb in verbs):
            return "verb", index
    for index, row in enumerate(lexicon.ADJECTIVES):
        if word in row:
            return "quality", index
    for index, row in enumerate(lexicon.PLACES):
        if word in row:
            return "place", index
    return None


def concepts(text: str) -> dict[str, int]:
    found = [concept(word) for word in re.findall(r"\w+", text)]
    return dict(item for item in found if item is not None)


@pytest.mark.parametrize("label", [0, 1])
def test_boolean_labels_follow_from_the_words(label: int) -> None:
    checked = 0
    for record in suite.generate("boolean", "train", 600):
        if record["label"] != label:
            continue
        passage, question, _ = record["input"].split("\n")
        # The event tells a verb, a quality and a place; an opinion has none of the verbs.
        (event,) = [
            part for part in passage.partition(": ")[2].split(". ") if "verb" in concepts(part)
        ]
        ((kind, index),) = concepts(question.partition(": ")[2]).items()
        assert (concepts(event)[kind] == index) == bool(label)
        checked += 1
    assert checked == 300


@pytest.mark.parametrize("label", [0, 1])
def test_paraphrase_labels_follow_from_the_words(label: int) -> None:
    rows = [row for _, row in OBJECTS]
    for record in suite.generate("paraphrase", "train", 600):
        if record["label"] == label:
            first, second, _ = (line.partition(": ")[2] for line in record["input"].split("\n"))
            names = [set(re.findall(r"\w+", s)) & set(lexicon.NAMES) for s in (first, second)]
            things = [
                [i for i, row in enumerate(rows) if set(re.findall(r"\w+", s)) & set(row)]
                for s in (first, second)
            ]
            alike = (concepts(first), names[0], things[0]) == (
                concepts(second),
                names[1],
                things[1],
            )
            assert alike == bool(label)


@pytest.mark.parametrize("label", [0, 1])
def test_agreement_labels_follow_from_the_words(label: int) -> None:
    checked = 0
    for record in suite.generate("acceptability", "train", 600):
        match = re.search(r": the (\w+) near the \w+ (\w+)", record["input"])
        if match and record["label"] == label:
            assert (match[1].endswith("s") != match[2].endswith("s")) == bool(label)
            checked += 1
    assert checked > 50


def test_shipped_files_are_small_and_hold_no_pickle() -> None:
    files = [path for family in FAMILIES for path in (HERE / family).iterdir()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}


@pytest.mark.parametrize("family", FAMILIES)
def test_models_load_offline_in_float32(family: str) -> None:
    model, tokenizer = load(family)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.vocab_size == len(tokenizer)
    for name in ("pad_token_id", "eos_token_id", "bos_token_id", "unk_token_id"):
        assert isinstance(getattr(tokenizer, name), int)
    if family == "llama":
        assert model.config.num_key_value_heads < model.config.num_attention_heads


@pytest.mark.parametrize("family", FAMILIES)
def test_every_word_of_the_suite_is_one_known_token(family: str) -> None:
    _, tokenizer = load(family)
    for _, _, record in all_records(100):
        ids = tokenizer(record["input"], add_special_tokens=False)["input_ids"]
        words = re.findall(r"\w+|[^\w\s]", str(record["input"]).lower())
        assert tokenizer.convert_ids_to_tokens(ids) == words
    answers = {choice for form in suite.FORMS.values() for choice in form.choices}
    for answer in answers:
        (token,) = tokenizer(answer, add_special_tokens=False)["input_ids"]
        assert token != tokenizer.unk_token_id
        assert tokenizer.decode([token]) == answer


@pytest.mark.parametrize("family", FAMILIES)
def test_words_from_outside_the_world_are_spelled_not_lost(family: str) -> None:
    _, tokenizer = load(family)
    ids = tokenizer("Zanzibar (2024), naïve!", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert str(tokenizer.decode(ids)).startswith("zanzibar")


@torch.no_grad()
def accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, records: list[dict[str, object]]
) -> float:
    right = 0
    for record in records:
        inputs = tokenizer(str(record["input"]), return_tensors="pt")
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
        scores = model(**inputs).logits[0, -1]
        answers = tokenizer(record["choices"], add_special_tokens=False)["input_ids"]
        best = max(range(len(answers)), key=lambda i: float(scores[answers[i][0]]))
        right += best == record["label"]
    return right / len(records)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_untouched_model_does_not_know_the_tasks(family: str) -> None:
    model, tokenizer = load(family)
    scores = [
        accuracy(model, tokenizer, suite.generate(task, "validation", 60)) for task in suite.TASKS
    ]
    assert sum(scores) / len(scores) < 0.7


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pretrained_model_knows_the_world(family: str) -> None:
    """Judgements in the corpus's own words are far above chance: pre-training took place."""
    model, tokenizer = load(family)
    rng = random.Random("known")
    records: list[dict[str, object]] = []
    for task in ("sentiment", "entailment", "acceptability"):
        for _ in range(40):
            document = corpus.judgement(rng, task)
            answers = re.findall(r"\w+", document.prompt)[-5:]
            options = [a for a in dict.fromkeys([document.answer, *answers]) if a not in ("or", "")]
            records.append({"input": document.prompt, "choices": options, "label": 0})
    assert accuracy(model, tokenizer, records) > 0.6


@pytest.mark.parametrize("family", FAMILIES)
def test_the_script_makes_a_loadable_folder(family: str, tmp_path: Path) -> None:
    out = tmp_path / family
    command = [str(ROOT / "scripts" / "pretrain_embedded.py"), family, "--out", str(out)]
    done = forked.run(*command, "--steps", "2", "--threads", "1", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "step 2/2 loss" in done.stdout
    model, tokenizer = load(family, out)
    assert model.config.vocab_size == len(tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == [family]
    shipped = (HERE / family / "tokenizer.json").read_text()
    assert (out / "tokenizer.json").read_text() == shipped
