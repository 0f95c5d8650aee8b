"""Search strategies: one strategy, one file."""
