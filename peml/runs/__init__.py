"""Runs from Python: `peml.train` and `peml.search`, which do what the commands of their names do.

It may import every room but `commands`, and is imported by none.
"""
