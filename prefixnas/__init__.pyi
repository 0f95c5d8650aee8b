"""The public names of prefixnas, and where they are."""

from .base.errors import UserError as UserError
from .base.options import option as option
from .multitrial.strategy import Scored as Scored
from .multitrial.strategy import TrialStrategy as TrialStrategy
from .network.child import build_child as build_child
from .network.child import knobs_of as knobs_of
from .network.relaxations import Relaxation as Relaxation
from .network.relaxations import register_relaxation as register_relaxation
from .network.supernet import Supernet as Supernet
from .network.supernet import weights_of as weights_of
from .run.evaluation import Evaluation as Evaluation
from .run.ledger import BudgetExceeded as BudgetExceeded
from .run.objective import Objective as Objective
from .run.objective import ObjectiveConfig as ObjectiveConfig
from .run.objective import register_objective as register_objective
from .run.recipe import Recipe as Recipe
from .run.result import SearchResult as SearchResult
from .run.run import Budget as Budget
from .run.run import Run as Run
from .run.search import search as search
from .run.strategy import Found as Found
from .run.strategy import Strategy as Strategy
from .run.strategy import register_strategy as register_strategy
from .run.supervised import SupervisedObjective as SupervisedObjective
from .run.training import WeightOptimizer as WeightOptimizer
from .run.training import fit as fit
from .space.architecture import Architecture as Architecture
from .space.decisions import Decision as Decision
from .space.loading import load_space as load_space
from .space.nodes import Choice as Choice
from .space.nodes import Op as Op
from .space.nodes import Seq as Seq
from .space.nodes import Stack as Stack
from .space.nodes import Sum as Sum
from .space.open_space import OpenSpace as OpenSpace
from .space.ops import register_op as register_op
from .space.space import SearchSpace as SearchSpace

__version__: str
