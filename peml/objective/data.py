"""The joint batches of a problem: which examples of which task come next, on each split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peml.batches.collate import Collator
from peml.batches.sampler import JointSampler
from peml.objective.asked import gamma_of
from peml.objective.options import LanguageModelOptions
from peml.tasks.examples import Example
from peml.tasks.task import Task
from prefixnas.run.evaluation import Split

SPLITS: Sequence[Split] = ("train", "selection")
"""Those that steps are taken on."""


class JointData:
    """How far each split was drawn.

    Args:
        config: How tasks are sampled.
        tasks: The tasks.
        collator: Says how long an example is.
    """

    def __init__(
        self, config: LanguageModelOptions, tasks: Sequence[Task], collator: Collator
    ) -> None:
        self.samplers: dict[str, JointSampler] = {}
        self._config, self._tasks, self._collator = config, tasks, collator

    def restart(self, seed: int) -> None:
        """Begin at the start of an order that follows from the seed."""
        self.samplers = {split: self.sampler(split, seed) for split in SPLITS}

    def draws(self, split: Split) -> Iterator[list[tuple[Task, list[Example]]]]:
        """Yield the joint batches of a split, one a step: examples per task (eq. 1)."""
        by_name = {task.name: task for task in self._tasks}
        for drawn in self.samplers[split]:
            yield [
                (by_name[name], [by_name[name].splits[split][index] for index in indices])
                for name, indices in drawn
            ]

    def state_dict(self) -> dict[str, Any]:
        """Return how far each split was drawn, as JSON values."""
        return {split: sampler.state_dict() for split, sampler in self.samplers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            UserError: It was saved with other tasks, sizes or ways to sample.
        """
        for split, saved in state.items():
            seed = saved["made_for"]["seed"]
            if split not in self.samplers or self.samplers[split].seed != seed:
                self.samplers[split] = self.sampler(split, seed)
            self.samplers[split].load_state_dict(saved)

    def sampler(self, split: str, seed: int) -> JointSampler:
        """Return a fresh order of a split."""
        config = self._config
        return JointSampler(
            {task.name: self._collator.lengths(task, split) for task in self._tasks},
            mode=config.sampling,
            gamma={task.name: gamma_of(config, task) for task in self._tasks},
            batch_size=config.batch_size,
            temperature=config.temperature,
            seed=seed,
        )
