"""Search strategies, one a file; imported as `prefixnas.strategies`.

    >>> from prefixnas.strategies import Darts, Evolution
    >>> Evolution(trials=4, population=2, sample=2).trials
    4

For users. May import: the public names of prefixnas, oneshot, multitrial.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
