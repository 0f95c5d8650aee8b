"""One search, as a library: objective, strategy, budget, loops, ledger, checkpoint, events, record.

For all rooms above. May import: base, space, network.
"""
