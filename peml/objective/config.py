"""The entry point of the objective: options, and how they become a training problem."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_type_hints

from peml.methods.lowrank import LowRank
from peml.methods.method import METHODS
from peml.objective.options import LanguageModelOptions
from prefixnas.base.registry import Registry
from prefixnas.run.objective import ObjectiveConfig

if TYPE_CHECKING:
    from peml.objective.objective import JointObjective


@dataclass(frozen=True)
class LanguageModelProblem(LanguageModelOptions, ObjectiveConfig):
    """What all methods have in common; a configuration has the options of one method besides."""

    references: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "preembedd": {"space": "preembedd"},
        "linear-tanh-linear": {"space": "mlp"},
        "six tanh cells": {"space": "default", "set": ["activation=tanh"]},
        "three tanh cells": {"space": "tanh3"},
    }
    """Prefix encoders made by hand: the paper's, PEFT's, and fixed cells with LayerNorm."""

    alone: ClassVar[str] = "lora"
    parts: ClassVar[Mapping[str, Registry[Any]]] = {"method": METHODS}

    @classmethod
    def with_parts(cls, names: Mapping[str, str]) -> type[ObjectiveConfig]:
        """Return the configuration of the method that is named."""
        return cls.of(names["method"])

    @staticmethod
    def of(method: str) -> type[LanguageModelProblem]:
        """Return the dataclass with a method's options, by its name.

        Raises:
            UserError: Unknown method.

        Example:
            >>> from peml import LanguageModelConfig
            >>> LanguageModelConfig.of("dora")(lora_rank=4).method
            'dora'
        """
        return _config_of(method, METHODS.get(method, "key 'method'"))

    def preview(self) -> list[str]:
        """Return one line a task, its kind, choices, metrics and counts, and what is odd in it.

        Raises:
            UserError: A task is not usable.
        """
        from peml.objective.asked import remarks_of, tasks_of
        from peml.tasks.preview import summary

        tasks = tasks_of(self)
        return [line for task in tasks for line in (summary(task), *remarks_of(self, task))]

    def epoch(self, seed: int) -> float:
        """Return in how many joint steps every training example comes up: see `JointSampler`.

        Raises:
            UserError: A task is not usable.
        """
        from peml.batches.sampler import JointSampler
        from peml.objective.asked import gamma_of, tasks_of

        tasks = tasks_of(self)
        return JointSampler(
            {task.name: [0] * len(task.splits["train"]) for task in tasks},
            mode=self.sampling,
            gamma={task.name: gamma_of(self, task) for task in tasks},
            batch_size=self.batch_size,
            temperature=self.temperature,
            seed=seed,
        ).epoch

    def build(self, total_steps: int, seed: int) -> JointObjective:
        """Load the model and the tasks.

        Args:
            total_steps: Optimiser steps of the run.
            seed: Seed of the first weights.

        Raises:
            UserError: The model, a task or an option is not usable.
        """
        from peml.model.quiet import quiet_libraries

        quiet_libraries()  # before PEFT imports bitsandbytes, which speaks while it is imported
        from peml.objective.objective import JointObjective

        return JointObjective(self, total_steps, seed)


@dataclass(frozen=True)
class LanguageModelConfig(LowRank, LanguageModelProblem):
    """LoRA and a prefix on one Hugging Face model, for many tasks.

    `LanguageModelConfig.of(NAME)` is the configuration of another method.

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


@functools.cache
def _config_of(name: str, method: type[Any]) -> type[LanguageModelProblem]:
    if name == LanguageModelConfig.method:
        return LanguageModelConfig
    kinds = get_type_hints(method)
    own = [(f.name, kinds[f.name], copy.copy(f)) for f in fields(method)]
    known = {f.name: f for f in fields(LanguageModelProblem)}["method"]
    named = copy.copy(known)
    named.default = name
    made = make_dataclass(
        LanguageModelConfig.__name__,
        [*own, ("method", str, named)],
        bases=(LanguageModelProblem,),
        frozen=True,
    )
    made.__doc__ = f"{method.label} and a prefix on one Hugging Face model, for many tasks."
    return cast("type[LanguageModelProblem]", made)
