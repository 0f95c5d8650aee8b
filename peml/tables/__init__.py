"""Tables: rows of methods and prefixes under one recipe, from a file to what is shown.

A row is a run of its own configuration, with every seed, at the learning rates that did best in
trials that all rows have alike.
"""
