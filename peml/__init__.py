"""PEML: LoRA and a searched continuous prefix, trained jointly for many tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peml.adapters.export import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Importing the package alone must not import torch.
    if name == "load":
        from peml.adapters.export import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
