"""From a configuration to a run directory: keys, plan, check, start, several processes, replay.

For compare, experiments, testing, commands. May import: everything up to report.
"""
