"""What differentiable strategies are made of: all candidates at once, weighted by alpha.

A strategy builds a `prefixnas.Supernet` and takes a `Level` (on which losses alphas and weights
move), an `Update` (what alpha is, and what moves it), a `prefixnas.Relaxation` and a `Selection`
(which architecture is read off); it writes the loop. `prefixnas.strategies.Darts` is one.

For strategies. May import: base, space, network, run.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
