"""One run, read back and shown: progress, tables, plots, its page, the diagnosis.

For launch, compare, experiments, commands. May import: base, space, network, run.
"""
