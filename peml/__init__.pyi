"""The public names of peml, and where they are."""

from .adapters.evaluate import evaluate as evaluate
from .adapters.export import export as export
from .adapters.load import load as load
from .adapters.predict import predict as predict
from .objective.config import LanguageModelConfig as LanguageModelConfig
from .runs.train import search as search
from .runs.train import train as train
from .tasks.load import load_tasks as load_tasks

__version__: str
