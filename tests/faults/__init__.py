"""Faults on purpose: kills, full disks, damaged files, signals; and what must come of them.

`test_*.py` are a short form of each campaign, `make faults` (`__main__.py`) is the long one.
"""
