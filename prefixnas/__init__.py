"""PrefixNAS: architecture search for small modules inside a bigger training problem.

The names that a user needs are offered here, and imported when they are used: importing the package
alone imports no torch. Everything else lies in rooms, which import one way, from the first to the
last: base, space, network, run, oneshot and multitrial, strategies, report, launch, compare,
experiments, testing, commands.
"""

from importlib.metadata import version

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
__all__ += ["__version__"]

__version__ = version("prefixnas")
