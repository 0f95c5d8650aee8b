"""What was lost when examples were tokenised: counted, and told of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class TruncationCounter:
    """How many different examples of each task were tokenised, and how many of them lost text."""

    seen: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, task: str, cut: bool, unknown: bool = False) -> None:
        """Count one example: whether its prompt was cut, its answer has unknown tokens."""
        self.seen[task] += 1
        self.cut[task] += cut
        self.unknown[task] += unknown

    def messages(self) -> list[str]:
        """Return one line for each task with cut prompts, and with unknown tokens in answers."""
        cut = [
            f"{task}: {count} of {self.seen[task]} prompts were longer than the model's window "
            "and lost their beginning"
            for task, count in self.cut.items()
            if count
        ]
        return cut + [
            f"{task}: {count} of {self.seen[task]} answers hold characters that the model has no "
            "token for, so it can't write them"
            for task, count in self.unknown.items()
            if count
        ]
