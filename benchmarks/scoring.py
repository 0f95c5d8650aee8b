"""Scoring choices here and by lm-eval, side by side: the same prompts, model, and answers.

    pip install lm-eval
    python benchmarks/scoring.py --model $MODELS/smollm2 --data $DATA

A task is a data folder's name, with a colon and a number behind it for so many shots. Both read the
same texts, with one thread; lm-eval in batches of eight. Seconds are the process's own (CPU time),
tokenising included, so that what else runs on the machine counts little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from peml.answers.evaluation import answer_examples
from peml.batches.collate import Collator
from peml.model.load import load_language_model
from peml.model.model import LanguageModel
from peml.model.quiet import quiet_libraries
from peml.tasks.examples import Example
from peml.tasks.load import load_task
from peml.tasks.splits import take
from peml.tasks.task import Task
from prefixnas.report.grid import Grid, Number
from prefixnas.report.terminal import Terminal

TASKS = ("mmlu:5", "sst2", "hellaswag", "arc_easy", "copa", "boolq")
BATCH = 8
Scorer = Callable[[Task, Sequence[Example]], list[int]]


@dataclass(frozen=True)
class Scored:
    """Choices by index, and the seconds that they took."""

    choices: list[int]
    seconds: float

    def accuracy(self, examples: Sequence[Example]) -> float:
        """Return the share of right choices."""
        right = [c == e.label for c, e in zip(self.choices, examples, strict=True)]
        return sum(right) / len(right)


def ours(lm: LanguageModel) -> Scorer:
    """Score with this project, from the texts on."""

    def score(task: Task, examples: Sequence[Example]) -> list[int]:
        answers = answer_examples(Collator(lm), task, examples)
        return [int(answer.prediction) for answer in answers if answer.prediction is not None]

    return score


def lm_eval(lm: LanguageModel) -> Scorer:
    """Score with lm-eval: a request for each choice, behind the same prompt."""
    harness: Any = HFLM(
        pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=BATCH, device=str(lm.device)
    )

    def score(task: Task, examples: Sequence[Example]) -> list[int]:
        requests = [
            Instance("loglikelihood", {}, (task.prompt(example), f" {choice}"), place)
            for place, example in enumerate(examples)
            for choice in example.choices
        ]
        scores = [score for score, _ in harness.loglikelihood(requests, disable_tqdm=True)]
        found: list[int] = []
        for example in examples:
            own, scores = scores[: len(example.choices)], scores[len(example.choices) :]
            found.append(max(range(len(own)), key=own.__getitem__))
        return found

    return score


def timed(score: Scorer, task: Task, examples: Sequence[Example]) -> Scored:
    start = time.process_time()
    choices = score(task, examples)
    return Scored(choices, time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a decoder-only model")
    parser.add_argument("--data", type=Path, required=True, help="folder of data folders")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="NAME or NAME:SHOTS")
    parser.add_argument("--examples", type=int, default=100, help="most examples a task")
    args = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    lm = load_language_model(args.model)
    scorers = (ours(lm), lm_eval(lm))
    rows = []
    for named in args.tasks:
        name, _, shots = named.partition(":")
        task = load_task(args.data / name, shots=int(shots or 0))
        examples = take(task.splits["validation"], args.examples, f"scoring/{name}")
        for score in scorers:
            score(task, examples[:2])
        here, there = (timed(score, task, examples) for score in scorers)
        same = sum(a == b for a, b in zip(here.choices, there.choices, strict=True))
        rows.append(
            [
                named,
                f"{same} of {len(examples)}",
                f"{here.accuracy(examples):.3f}",
                f"{there.accuracy(examples):.3f}",
                f"{here.seconds:.1f}",
                f"{there.seconds:.1f}",
                f"{there.seconds / here.seconds:.2f}",
            ]
        )
        print(*rows[-1], sep="\t", flush=True)
    heads = ("accuracy", "lm-eval's", "seconds", "lm-eval's", "ratio")
    columns = ["task", "equal answers", *map(Number, heads)]
    Terminal().print(Grid(columns, rows))


if __name__ == "__main__":
    main()
