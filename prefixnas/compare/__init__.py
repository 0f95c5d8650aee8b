"""Several runs side by side: strategies, seeds, groups of tasks; their tables and plots.

For commands. May import: everything up to launch.
"""
