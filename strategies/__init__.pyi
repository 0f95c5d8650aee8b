"""The strategies, and where they are."""

from .darts import Darts as Darts
from .evolution import Evolution as Evolution
from .fixed import Fixed as Fixed
from .random import RandomSearch as RandomSearch
from .surrogate import Surrogate as Surrogate
from .tpe import Tpe as Tpe
from .two_stage import TwoStage as TwoStage
