"""PEML: LoRA and a searched continuous prefix, trained jointly for many tasks.

From Python: `train` or `search`, then `load`, `evaluate`, `predict` and `export`. Everything else
lies in the rooms below, which import one way: embedded, model, tasks, prefix, methods, batches,
answers, adapters, objective, then runs, tables and testing, commands.
"""

from importlib.metadata import version

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
__all__ += ["__version__"]

__version__ = version("prefixnas")
