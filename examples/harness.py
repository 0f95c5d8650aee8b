"""Score an exported model with lm-eval, EleutherAI's evaluation harness, on tasks of one's own.

    pip install lm-eval
    peml export runs/real out/real --format peft
    python examples/harness.py out/real --tasks data/sst2 data/rte

A PEFT export is loaded by lm-eval itself, as `lm_eval --model hf --model_args
pretrained=out/real/merged,peft=out/real,tokenizer=out/real` does; a run, or an export in the format
`peml`, by `peml.load`. The scores are those of `peml evaluate`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

import peml


def harness_model(folder: Path, batch_size: int = 8) -> Any:
    """Load an export as a model of lm-eval."""
    if (folder / "adapter_config.json").is_file():
        return HFLM(
            pretrained=str(folder / "merged"),
            peft=str(folder),
            tokenizer=str(folder),
            batch_size=batch_size,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
    adapted = peml.load(folder)
    return HFLM(pretrained=adapted.model, tokenizer=adapted.tokenizer, batch_size=batch_size)


def harness_task(source: str) -> Any:
    """Make a task of lm-eval of one that `--tasks` takes: the same prompts, the same choices."""
    (task,) = peml.load_tasks([source])
    if task.kind != "choice":
        raise SystemExit(f"{source}: is no choice task")
    rows = [
        {"prompt": task.prompt(each), "choices": list(each.choices), "label": each.label}
        for each in task.splits["validation"]
    ]
    return ConfigurableTask(
        config={
            "task": task.name,
            "custom_dataset": lambda **_: {"validation": datasets.Dataset.from_list(rows)},
            "validation_split": "validation",
            "output_type": "multiple_choice",
            "doc_to_text": "{{prompt}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "label",
            "target_delimiter": " ",
            "metric_list": [{"metric": "acc"}],
        }
    )


def harness_scores(folder: Path, sources: Sequence[str]) -> dict[str, float]:
    """Return lm-eval's accuracy of each task."""
    results: Any = simple_evaluate(
        model=harness_model(folder), tasks=[harness_task(source) for source in sources]
    )
    return {task: values["acc,none"] for task, values in results["results"].items()}


def main() -> None:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a run, or an export as peft or peml")
    parser.add_argument("--tasks", nargs="+", required=True, help="task files, folders")
    args = parser.parse_args()
    for task, score in harness_scores(args.folder, args.tasks).items():
        print(f"{task}\t{score:.4f}")


if __name__ == "__main__":
    main()
