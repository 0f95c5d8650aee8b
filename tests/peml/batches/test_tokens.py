from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from peml.batches.tokens import TextTokenizer
from prefixnas.base.errors import UserError
from tests.peml import tiny

TEXTS = ["it was good : yes", "it was not good : no", "so bad : maybe", "goods and yeses"]


def bpe(*, space: str) -> PreTrainedTokenizerFast:
    """Train a byte-level ("Ġ" before words) or a SentencePiece-like ("▁" at the start) BPE."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    special = ["<unk>", "<s>", "</s>"]
    alphabet: list[str] = []
    if space == "byte":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        core.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXTS * 20, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize("space", ["byte", "metaspace"])
def test_prompt_and_answer_join_to_the_natural_tokens(space: str) -> None:
    tokenizer = bpe(space=space)
    text = TextTokenizer(tokenizer, closed=False)
    prompt, _ = text.prompt("it was not good :", 100)
    joint = prompt + text.answer("yes")
    assert joint == tuple(tokenizer("it was not good : yes")["input_ids"][:-1])
    assert text.text(joint) == "it was not good : yes"


@pytest.mark.parametrize("space", ["byte", "metaspace"])
def test_special_tokens_around_prompts(space: str) -> None:
    opened = TextTokenizer(bpe(space=space), closed=False)
    closed = TextTokenizer(bpe(space=space), closed=True)
    assert opened.front == (1,) and opened.back == ()
    assert closed.front == (1,) and closed.back == (2,)
    assert closed.prompt("so bad", 100)[0] == (*opened.prompt("so bad", 100)[0], 2)


@given(st.lists(st.sampled_from(tiny.WORDS[5:]), min_size=1, max_size=20), st.integers(1, 25))
def test_a_cut_prompt_keeps_its_end(words: list[str], limit: int) -> None:
    text = TextTokenizer(tiny.tokenizer(), closed=False)
    ids, cut = text.prompt(" ".join(words), limit)
    whole, _ = text.prompt(" ".join(words), 1000)
    assert cut == (len(whole) > limit)
    assert ids == whole[-limit:]


def test_a_cut_prompt_keeps_its_special_tokens() -> None:
    text = TextTokenizer(bpe(space="byte"), closed=True)
    ids, cut = text.prompt("it was not good : it was not good :", 5)
    assert cut and len(ids) == 5
    assert (ids[0], ids[-1]) == (1, 2)
    with pytest.raises(ValueError, match="no room"):
        text.prompt("it", 2)


def test_an_empty_prompt_is_one_start_token() -> None:
    text = TextTokenizer(tiny.tokenizer(), closed=False)
    assert text.prompt("", 10) == ((tiny.WORDS.index("<s>"),), False)


def test_an_answer_without_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="has no token"):
        TextTokenizer(tiny.tokenizer(), closed=False).answer(" ")


def test_the_window() -> None:
    tokenizer = tiny.tokenizer()
    assert TextTokenizer(tokenizer, closed=False).window is None
    tokenizer.model_max_length = 77
    assert TextTokenizer(tokenizer, closed=False).window == 77


def real_tokenizer(name: str) -> Any:
    folder = os.environ.get("PEML_MODELS")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip("set PEML_MODELS to a folder of models")
    return AutoTokenizer.from_pretrained(Path(folder) / name)


@pytest.mark.real
@pytest.mark.parametrize("answer", ["negative", "not_entailment", "answer1", "3.8", "yes", "A"])
def test_real_byte_level_bpe(answer: str) -> None:
    tokenizer = real_tokenizer("smollm2")
    text = TextTokenizer(tokenizer, closed=False)
    prompt = "Sentence: it 's fine .\nIs it negative or positive?"
    joint = text.prompt(prompt, 1000)[0] + text.answer(answer)
    assert joint == tuple(tokenizer(f"{prompt} {answer}")["input_ids"])


@pytest.mark.real
def test_real_wordpiece() -> None:
    tokenizer = real_tokenizer("minilm")
    text = TextTokenizer(tokenizer, closed=True)
    assert text.window == 512
    assert text.prompt("a fine film", 100)[0] == tuple(tokenizer("a fine film")["input_ids"])
