"""PEML: LoRA and a searched continuous prefix, trained jointly for many tasks.

From Python: train with `LanguageModelConfig`, then `load`, `evaluate` and `export`. Everything else
lies in the rooms below, which import one way: embedded, model, tasks, prefix, lora, batches,
answers, adapters, objective, commands.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peml.adapters.evaluate import evaluate as evaluate
    from peml.adapters.export import export as export
    from peml.adapters.load import load as load
    from peml.objective.config import LanguageModelConfig as LanguageModelConfig
    from peml.tasks.task import load_tasks as load_tasks

    __version__: str

_PUBLIC = {
    "LanguageModelConfig": "objective.config",
    "evaluate": "adapters.evaluate",
    "export": "adapters.export",
    "load": "adapters.load",
    "load_tasks": "tasks.task",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    # Importing the package alone must not import torch.
    if name == "__version__":
        from importlib.metadata import version

        return version("prefixnas")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
