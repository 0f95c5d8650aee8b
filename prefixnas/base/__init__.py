"""What everything stands on: errors, files, names, options, locks, processes, numbers.

For all rooms. May import: nothing of this project.
"""
