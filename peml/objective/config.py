"""The entry point of the objective: options, and how they become a training problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peml.objective.options import LanguageModelOptions

if TYPE_CHECKING:
    from peml.objective.objective import JointObjective


@dataclass(frozen=True)
class LanguageModelConfig(LanguageModelOptions):
    """LoRA and a prefix on one Hugging Face model, for many tasks."""

    references: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "preembedd": {"space": "preembedd"},
        "linear-tanh-linear": {"space": "mlp"},
        "six tanh cells": {"space": "default", "set": ["activation=tanh"]},
        "three tanh cells": {"space": "tanh3"},
    }
    """Prefix encoders made by hand: the paper's, PEFT's, and fixed cells with LayerNorm."""

    def build(self, total_steps: int, seed: int) -> JointObjective:
        """Load the model and the tasks."""
        from peml.model.quiet import quiet_libraries
        from peml.objective.objective import JointObjective

        quiet_libraries()
        return JointObjective(self, total_steps, seed)
