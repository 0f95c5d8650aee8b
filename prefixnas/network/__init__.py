"""A space as PyTorch modules: mixtures, relaxations, the supernet and the children cut out of it.

For all rooms above. May import: base, space.
"""
