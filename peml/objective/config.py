"""The entry point of the objective: options, and how they become a training problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peml.objective.options import LanguageModelOptions
from prefixnas.run.objective import ObjectiveConfig

if TYPE_CHECKING:
    from peml.objective.objective import JointObjective


@dataclass(frozen=True)
class LanguageModelConfig(LanguageModelOptions, ObjectiveConfig):
    """LoRA and a prefix on one Hugging Face model, for many tasks.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from peml import LanguageModelConfig
        >>> from prefixnas import Budget, Run, load_space, search
        >>> from prefixnas.strategies.darts import Darts
        >>> config = LanguageModelConfig(
        ...     tasks=["embedded:sentiment"], train_limit=40, eval_limit=8, lora_rank=4
        ... )
        >>> budget = Budget(search=4, train=2)
        >>> with TemporaryDirectory() as folder:
        ...     objective = config.build(budget.total, seed=0)
        ...     run = Run(Path(folder), load_space("default"), objective, budget, seed=0)
        ...     result = search(run, Darts(), baseline="none")
        >>> [*result.columns]
        ['untouched', 'mixture', 'argmax child', 'trained child']
    """

    references: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "preembedd": {"space": "preembedd"},
        "linear-tanh-linear": {"space": "mlp"},
        "six tanh cells": {"space": "default", "set": ["activation=tanh"]},
        "three tanh cells": {"space": "tanh3"},
    }
    """Prefix encoders made by hand: the paper's, PEFT's, and fixed cells with LayerNorm."""

    alone: ClassVar[str] = "lora"

    def preview(self) -> list[str]:
        """Return one line a task: its kind, choices, metrics and counts.

        Raises:
            UserError: A task is not usable.
        """
        from peml.tasks.preview import summary
        from peml.tasks.task import load_tasks

        tasks = load_tasks(
            self.tasks,
            train_limit=self.train_limit,
            eval_limit=self.eval_limit,
            shots=self.shots,
            num_beams=self.num_beams,
        )
        return [summary(task) for task in tasks]

    def build(self, total_steps: int, seed: int) -> JointObjective:
        """Load the model and the tasks.

        Args:
            total_steps: Optimiser steps of the run.
            seed: Seed of the first weights.

        Raises:
            UserError: The model, a task or an option is not usable.
        """
        from peml.model.quiet import quiet_libraries
        from peml.objective.objective import JointObjective

        quiet_libraries()
        return JointObjective(self, total_steps, seed)
