"""Nothing of the base model trains: what is left is a prefix, or the heads of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peml.methods.method import Attached, Group, Method, Setting

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class Frozen(Method):
    """Nothing of the base model trains: a prefix alone, or the heads of an encoder alone."""

    label: ClassVar[str] = "frozen"

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Leave the model as it is."""
        return _Nothing(self, setting.tasks)


class _Nothing(Attached):
    def __init__(self, method: Frozen, tasks: tuple[str, ...]) -> None:
        self.method, self.tasks = method, tasks

    def groups(self) -> list[Group]:
        return []

    def reset(self, seed: int) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def save(self, folder: Path) -> None:
        pass

    def load(self, folder: Path) -> None:
        pass

    def merge(self, task: str | None = None) -> None:
        pass

    def detach(self) -> None:
        pass
