"""Methods with keys, rows or adapters of their own in the joint loss, and in adapter folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import peml
from peml.adapters.adapted import Adapted
from peml.answers.evaluation import evaluate_tasks
from peml.batches.collate import Collator
from peml.methods.method import METHODS, Attached
from peml.objective.objective import JointObjective
from prefixnas.base.errors import UserError
from prefixnas.run.objective import fit_space
from prefixnas.space.nodes import Seq
from prefixnas.space.space import SearchSpace
from tests.peml.objective.built import SPACE
from tests.peml.objective.test_methods import build

SMALL: dict[str, dict[str, Any]] = {
    "prefix-memory": {},
    "llama-adapter": {"prompt_length": 3},
    "hyperprompt": {"prompt_length": 3, "bottleneck": 4, "hidden": 4, "task_width": 4},
    "mpt": {"prompt_length": 3},
    "hyperformer": {"reduction": 8, "hidden": 4, "task_width": 4},
    "unipelt": {"prompt_length": 3, "prefix_hidden": 4, "reduction": 8},
}


def family(name: str) -> str:
    return "bert" if name == "unipelt" else "llama"


def of(adapted: Adapted) -> Attached:
    """Return the method of a loaded adapter."""
    (attached,) = adapted.lm.attached
    assert isinstance(attached, Attached)
    return attached


def trained(bench: Path, name: str) -> JointObjective:
    objective = build(bench, name, family(name), **SMALL[name])
    objective.reset(None, 0)
    optimizer = torch.optim.AdamW(objective.parameters())
    for _ in range(2):
        objective.backward()
        optimizer.step()
        optimizer.zero_grad()
    return objective


@pytest.mark.parametrize("name", SMALL)
def test_what_was_trained_computes_the_same_once_it_is_loaded(
    bench: Path, name: str, tmp_path: Path
) -> None:
    objective = trained(bench, name)
    objective.save(tmp_path)
    loaded = peml.load(tmp_path)
    assert loaded.manifest.method is not None
    task = objective.tasks[0]
    examples = task.splits["validation"][:3]
    found = []
    for lm in (objective.lm, loaded.lm):
        batch = Collator(lm).batch(task, examples)
        with torch.no_grad(), lm.on(task.name):
            outputs = lm.model.eval()(**batch.inputs)
        found.append(outputs.logits if "logits" in outputs else outputs.last_hidden_state)
    pairs = zip(objective.method.parameters(), of(loaded).parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SMALL if family(name) == "llama"])
def test_evaluation_in_batches_is_that_of_rows_alone(bench: Path, name: str) -> None:
    """Choices are scored from a cache behind padded prompts: sizes of batches change nothing."""
    objective = trained(bench, name)
    whole = objective.evaluate("validation")
    alone = evaluate_tasks(
        objective.lm, objective.tasks, collator=objective.collator, batch_tokens=1
    )
    assert whole.scores == alone.scores


@pytest.mark.parametrize("name", SMALL)
def test_a_searched_prefix_is_refused_beside_keys_of_a_methods_own(bench: Path, name: str) -> None:
    objective = build(bench, name, family(name), **SMALL[name])
    assert objective.method.method.changes_keys == METHODS.get(name).changes_keys
    fit_space(SearchSpace("none", Seq("identity")), objective)
    if name in ("llama-adapter", "hyperprompt", "unipelt"):
        with pytest.raises(UserError, match=r"keys and values of its own.*take --space none"):
            fit_space(SPACE, objective)
    else:
        fit_space(SPACE, objective)


def test_rows_of_the_input_take_positions_of_the_window(bench: Path) -> None:
    objective = build(bench, "mpt", prompt_length=5, max_length=None)
    window = objective.lm.model.config.max_position_embeddings
    assert objective.collator.max_length == window - 5
