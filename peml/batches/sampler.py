"""Which examples of which tasks a training step sees (eq. 1 and its alternatives)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any, Literal

from prefixnas.base.errors import UserError, unknown

Mode = Literal["gamma", "round-robin", "temperature"]
MODES: tuple[Mode, ...] = ("gamma", "round-robin", "temperature")
GAMMA = 0.1
POOL_BATCHES = 32

Draw = tuple[str, list[int]]


class JointSampler:
    """An endless iterator over steps; each is a list of ``(task, indices of its examples)``.

    Modes:
        gamma: Every step takes a batch of every task, ``b_i = floor(gamma_i * m_i)`` examples
            (eq. 1), at least 1 and at most ``batch_size``.
        round-robin: Every step takes one task, in turn, ``min(batch_size, m_i)`` examples.
        temperature: Every step takes one task, drawn with probability proportional to
            ``m_i ** (1 / temperature)``, ``min(batch_size, m_i)`` examples.

    A task's examples come in epochs: every example once, the last batch possibly shorter. They are
    shuffled, cut into pools of 32 batches, sorted by length within a pool, and the batches
    shuffled, so that a batch holds examples of like length.

    Everything drawn is a function of the seed and of the counters in `state_dict`, so a loaded
    sampler goes on exactly as the saved one would have.

    Args:
        lengths: Length in tokens of every example, by task.
        mode: See above.
        gamma: Sampling weight, one for all or by task (tasks left out, or None: 0.1).
        batch_size: Most examples of one task in one step.
        temperature: 1 draws tasks by their size, more draws them more evenly.
        seed: Seed of all draws.

    Raises:
        UserError: An unknown mode or a number out of range.
    """

    def __init__(
        self,
        lengths: Mapping[str, Sequence[int]],
        *,
        mode: Mode = "gamma",
        gamma: float | Mapping[str, float | None] = GAMMA,
        batch_size: int = 8,
        temperature: float = 2.0,
        seed: int = 0,
    ) -> None:
        if mode not in MODES:
            raise unknown("sampling mode", mode, MODES)
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {batch_size}")
        if not temperature > 0:
            raise UserError(f"temperature must be above 0, not {temperature}")
        if not lengths:
            raise UserError("there is no task to sample from")
        self.mode = mode
        self.temperature = temperature
        self.seed = seed
        self._lengths = {task: list(sizes) for task, sizes in lengths.items()}
        self.batch_sizes: dict[str, int] = {}
        for task, sizes in self._lengths.items():
            if not sizes:
                raise UserError(f"task {task!r} has no examples to sample from")
            weight = gamma.get(task) if isinstance(gamma, Mapping) else gamma
            weight = GAMMA if weight is None else weight
            if not 0 < weight <= 1:
                raise UserError(
                    f"gamma of task {task!r} must be above 0 and at most 1, not {weight}"
                )
            self.batch_sizes[task] = (
                batch_size_of(weight, len(sizes), batch_size)
                if mode == "gamma"
                else min(batch_size, len(sizes))
            )
        self._step = 0
        self._epochs = dict.fromkeys(self._lengths, 0)
        self._positions = dict.fromkeys(self._lengths, 0)
        self._orders: dict[str, list[list[int]]] = {}

    @property
    def epoch(self) -> float:
        """Steps until every example of every task came up, those of small tasks several times.

        With ``gamma`` and ``round-robin`` that is exact; with ``temperature`` it is the mean number
        of steps in which the last of the tasks is drawn often enough.
        """
        batches = {t: ceil(len(sizes) / self.batch_sizes[t]) for t, sizes in self._lengths.items()}
        if self.mode == "gamma":
            return max(batches.values())
        if self.mode == "round-robin":
            return len(batches) * max(batches.values())
        weights = self._weights()
        return max(count * sum(weights.values()) / weights[t] for t, count in batches.items())

    def __iter__(self) -> Iterator[list[Draw]]:
        return self

    def __next__(self) -> list[Draw]:
        tasks = self._tasks_of(self._step)
        self._step += 1
        return [(task, self._next_batch(task)) for task in tasks]

    def state_dict(self) -> dict[str, Any]:
        """Return counters as JSON values, with what they only make sense for."""
        return {
            "step": self._step,
            "epochs": dict(self._epochs),
            "positions": dict(self._positions),
            "made_for": self._made_for(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the saved sampler stood.

        Raises:
            UserError: The state was saved with other tasks, sizes, mode, batch sizes or seed.
        """
        for key, value in self._made_for().items():
            saved = state["made_for"].get(key)
            if saved != value:
                raise UserError(
                    f"cannot resume the sampling: {key} was {saved!r} and is now {value!r}"
                )
        epochs = {task: int(state["epochs"][task]) for task in self._lengths}
        self._orders = {t: o for t, o in self._orders.items() if self._epochs[t] == epochs[t]}
        self._step, self._epochs = int(state["step"]), epochs
        self._positions = {task: int(state["positions"][task]) for task in self._lengths}

    def _made_for(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "temperature": self.temperature,
            "seed": self.seed,
            "tasks": list(self._lengths),
            "sizes": [len(sizes) for sizes in self._lengths.values()],
            "batch_sizes": list(self.batch_sizes.values()),
        }

    def _tasks_of(self, step: int) -> list[str]:
        tasks = list(self._lengths)
        if self.mode == "gamma":
            return tasks
        if self.mode == "round-robin":
            return [tasks[step % len(tasks)]]
        weights = [*self._weights().values()]
        return random.Random(f"{self.seed}/step/{step}").choices(tasks, weights)

    def _weights(self) -> dict[str, float]:
        return {task: len(s) ** (1 / self.temperature) for task, s in self._lengths.items()}

    def _next_batch(self, task: str) -> list[int]:
        if task not in self._orders:
            self._orders[task] = self._epoch_batches(task, self._epochs[task])
        batch = self._orders[task][self._positions[task]]
        self._positions[task] += 1
        if self._positions[task] == len(self._orders[task]):
            self._epochs[task] += 1
            self._positions[task] = 0
            del self._orders[task]
        return list(batch)

    def _epoch_batches(self, task: str, epoch: int) -> list[list[int]]:
        # A string seeds through SHA-512, so the order is the same in every process.
        rng = random.Random(f"{self.seed}/{task}/{epoch}")
        lengths = self._lengths[task]
        size = self.batch_sizes[task]
        order = list(range(len(lengths)))
        rng.shuffle(order)
        batches: list[list[int]] = []
        for start in range(0, len(order), size * POOL_BATCHES):
            pool = sorted(order[start : start + size * POOL_BATCHES], key=lengths.__getitem__)
            batches.extend(pool[i : i + size] for i in range(0, len(pool), size))
        rng.shuffle(batches)
        return batches


def batch_size_of(gamma: float, size: int, cap: int) -> int:
    """Return ``floor(gamma * size)`` (eq. 1), at least 1 and at most ``cap``."""
    # A hair more than the product: 0.1 * 30 must be 3, not 2 because of rounding.
    return max(1, min(cap, int(gamma * size + 1e-9)))
