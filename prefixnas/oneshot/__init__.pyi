"""The kit of differentiable strategies, and where its parts are."""

from .alphas import AlphaOptimizer as AlphaOptimizer
from .entropy import ENTROPY_SCALES as ENTROPY_SCALES
from .entropy import EntropyTerm as EntropyTerm
from .evidence import Evidence as Evidence
from .level import LEVELS as LEVELS
from .level import Level as Level
from .level import register_level as register_level
from .one_path import refuse_norm_behind as refuse_norm_behind
from .options import RelaxedOptions as RelaxedOptions
from .probe import Probe as Probe
from .recording import alphas_of as alphas_of
from .recording import evaluate_mixture as evaluate_mixture
from .recording import warn_of_dropout as warn_of_dropout
from .schedule import SCHEDULES as SCHEDULES
from .schedule import Timetable as Timetable
from .selection import SELECTIONS as SELECTIONS
from .selection import Selection as Selection
from .selection import register_selection as register_selection
from .stopping import EarlyStop as EarlyStop
from .update import UPDATES as UPDATES
from .update import Update as Update
from .update import make_relaxation as make_relaxation
from .update import register_update as register_update
