"""Make the embedded models from nothing: peml/embedded/llama and peml/embedded/t5.

    python scripts/pretrain_embedded.py llama --out peml/embedded/llama
    python scripts/pretrain_embedded.py t5 --out peml/embedded/t5

Reproducible on one machine with one seed and thread count; see docs/embedded.md for the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import shutil
import string
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from peml.embedded.corpus import Document, comparisons, documents, judgement, vocabulary
from peml.embedded.suite import TASKS

PAD, EOS, UNK, BOS = "<pad>", "</s>", "<unk>", "<s>"
SENTINELS = [f"<extra_id_{i}>" for i in range(4)]
STEPS = {"llama": 5000, "t5": 5000}
RATES = {"llama": 1e-3, "t5": 1e-3}
# T5 starts its embeddings at a deviation of 1: they need larger steps than the rest.
EMBEDDING_RATES = {"llama": 1e-3, "t5": 1e-2}
BATCH = 64
POOL = 32
WARM_UP = 100
# Steps that see comparisons alone.
OPENING = 1024
IGNORED = -100


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Build the word-level tokenizer; words unknown to the world are spelled letter by letter."""
    letters = [
        c for c in string.printable if c.isprintable() and not c.isspace() and c == c.lower()
    ]
    pieces = [f"##{c}" for c in letters if c.isalnum()]
    specials = [PAD, EOS, UNK, BOS, *SENTINELS]
    entries = dict.fromkeys([*specials, *letters, *pieces, *vocabulary()])
    ids = {entry: index for index, entry in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocab=ids, unk_token=UNK, max_input_chars_per_word=60))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    single = f"{BOS} $A" if family == "llama" else f"$A {EOS}"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(BOS, ids[BOS]), (EOS, ids[EOS])]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        bos_token=BOS,
        extra_special_tokens=SENTINELS,
        padding_side="left" if family == "llama" else "right",
        model_max_length=256,
    )


def make_model(family: str, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    if family == "llama":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=128,
                intermediate_size=320,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                # About 1 / sqrt(width): the usual 0.02 learns this world half as fast.
                initializer_range=0.08,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    return T5ForConditionalGeneration(
        T5Config(  # type: ignore[call-arg]
            vocab_size=len(tokenizer),
            d_model=128,
            d_kv=32,
            d_ff=256,
            num_layers=3,
            num_decoder_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            relative_attention_num_buckets=32,
            relative_attention_max_distance=64,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    )


def corrupted(text: str, rng: random.Random) -> Document:
    """Replace up to three spans of a story by sentinels; the answer tells the spans."""
    words = text.split()
    source: list[str] = []
    target: list[str] = []
    marks = iter(SENTINELS[:3])
    position = 0
    while position < len(words):
        mark = next(marks, None) if rng.random() < 0.15 else None
        if mark is None:
            source.append(words[position])
            position += 1
            continue
        span = rng.randint(1, 3)
        source.append(mark)
        target += [mark, *words[position : position + span]]
        position += span
    if not target:
        return Document(" ".join([*words[:-1], SENTINELS[0]]), f"{SENTINELS[0]} {words[-1]}")
    return Document(" ".join(source), " ".join(target))


Row = tuple[list[int], list[int]]


def as_rows(tokenizer: PreTrainedTokenizerFast, pool: list[Document]) -> list[Row]:
    """Return (prompt ids, answer ids) of each document, the answer closed by end-of-text."""
    prompts = tokenizer([d.prompt for d in pool])["input_ids"]
    answers = tokenizer([d.answer for d in pool], add_special_tokens=False)["input_ids"]
    return [(p, [*a, tokenizer.eos_token_id]) for p, a in zip(prompts, answers, strict=True)]


def rows(
    family: str, tokenizer: PreTrainedTokenizerFast, seed: int, go_on: bool = False
) -> Iterator[list[Row]]:
    """Yield batches of (prompt ids, answer ids), each of about equal length, without end.

    Args:
        family: "llama" or "t5".
        tokenizer: Its tokenizer.
        seed: Seed of the documents and their order.
        go_on: The stream for a model that has seen the whole corpus: no opening, and half of it
            the kinds that take the longest.
    """
    rng = random.Random(f"rows/{seed}")
    if go_on:
        stream = senses_and_agreement(seed)
    else:
        first = itertools.islice(comparisons(seed), OPENING * BATCH)
        stream = itertools.chain(first, documents(seed))
    while True:
        pool = list(itertools.islice(stream, BATCH * POOL))
        if family == "t5":
            pool = [d if d.prompt else corrupted(d.answer, rng) for d in pool]
        items = as_rows(tokenizer, pool)
        items.sort(key=lambda item: (len(item[0]) + len(item[1]), item))
        batches = [items[i : i + BATCH] for i in range(0, len(items), BATCH)]
        rng.shuffle(batches)
        yield from batches


def senses_and_agreement(seed: int) -> Iterator[Document]:
    """Yield the corpus, every other document an exercise on word senses or on grammar."""
    rng = random.Random(f"senses/{seed}")
    for document in documents(seed + 1):
        yield document
        yield judgement(rng, rng.choice(("word_in_context", "word_in_context", "acceptability")))


def padded(lists: list[list[int]], value: int) -> Tensor:
    width = max(map(len, lists))
    return torch.tensor([ids + [value] * (width - len(ids)) for ids in lists])


def answer_logits(model: PreTrainedModel, batch: list[Row], pad: int) -> tuple[Tensor, Tensor]:
    """Return logits ``[answer tokens of the batch, vocabulary]`` and their targets."""
    if isinstance(model, LlamaForCausalLM):
        ids = padded([p + a for p, a in batch], pad)
        targets = padded([[IGNORED] * len(p) + a for p, a in batch], IGNORED)[:, 1:]
        # Right padding under a causal mask needs no attention mask.
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        wanted = targets != IGNORED
        # The head runs where it is scored: a third of the time of a step otherwise.
        return model.lm_head(hidden[wanted]), targets[wanted]
    sources = [p for p, _ in batch]
    targets = padded([a for _, a in batch], IGNORED)
    logits = model(
        input_ids=padded(sources, pad),
        attention_mask=padded([[1] * len(p) for p in sources], 0),
        labels=targets,
        use_cache=False,
    ).logits
    wanted = targets != IGNORED
    return logits[wanted], targets[wanted]


def batch_loss(model: PreTrainedModel, batch: list[Row], pad: int) -> Tensor:
    """Return the mean loss over answers: one word counts like a whole reworded sentence."""
    logits, targets = answer_logits(model, batch, pad)
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    weights = torch.cat([torch.full((len(a),), 1 / len(a)) for _, a in batch])
    return (losses * weights).sum() / len(batch)


@torch.no_grad()
def judgement_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, count: int = 200
) -> dict[str, float]:
    """Return the share of fresh judgements answered rightly, per kind of content."""
    scores = {}
    for task in TASKS:
        rng = random.Random(f"judgements/{task}")
        batch = as_rows(tokenizer, [judgement(rng, task) for _ in range(count)])
        logits, targets = answer_logits(model, batch, tokenizer.pad_token_id)
        # Every other row is the end-of-text token: a judgement is a single word.
        scores[task] = (logits.argmax(-1) == targets)[::2].float().mean().item()
    return scores


def train(
    family: str, steps: int, seed: int, start: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(family)
    model = make_model(family, tokenizer)
    if start is not None:
        model.load_state_dict(type(model).from_pretrained(start, dtype=torch.float32).state_dict())
    count = sum(p.numel() for p in model.parameters())
    print(f"{family}: {count:,} parameters, {len(tokenizer)} tokens", flush=True)
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        embedding = "shared" in name or "relative" in name or "embed_tokens" in name
        rate = (EMBEDDING_RATES if embedding else RATES)[family]
        groups.setdefault(rate, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": parameters, "lr": rate} for rate, parameters in groups.items()],
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / WARM_UP, 0.5 * (1 + math.cos(math.pi * min(1.0, s / steps)))),
    )
    started = time.perf_counter()
    shown = 0.0
    for step, batch in enumerate(
        itertools.islice(rows(family, tokenizer, seed, start is not None), steps), 1
    ):
        loss = batch_loss(model, batch, tokenizer.pad_token_id)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        shown += loss.item()
        if step % 100 == 0 or step == steps:
            mean = shown / (step % 100 or 100)
            seconds = time.perf_counter() - started
            print(f"step {step}/{steps} loss {mean:.4f} {seconds:.0f} s", flush=True)
            shown = 0.0
        if step % 500 == 0 or step == steps:
            scores = judgement_scores(model, tokenizer)
            print("  " + "  ".join(f"{k} {v:.2f}" for k, v in scores.items()), flush=True)
    model.train(False)
    return model, tokenizer


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the folder under a temporary name, then put it in the place of the old one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
        fresh = Path(name) / "new"
        model.half().save_pretrained(fresh)  # type: ignore[no-untyped-call]
        tokenizer.save_pretrained(fresh)
        # Stored in half precision for size, loaded in float32: CPUs compute in nothing smaller.
        config = json.loads((fresh / "config.json").read_text())
        config["dtype"] = "float32"
        (fresh / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        if out.exists():
            shutil.move(out, Path(name) / "old")
        fresh.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("family", choices=tuple(STEPS))
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, help=f"optimiser steps, default {STEPS}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="go on from this folder's weights")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps = STEPS[arguments.family] if arguments.steps is None else arguments.steps
    save(*train(arguments.family, steps, arguments.seed, arguments.start), arguments.out)
    print(f"wrote {arguments.out}", flush=True)


if __name__ == "__main__":
    main()
