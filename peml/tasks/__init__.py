"""What is to be learned, from task files, data folders, the hub or the suite.

Others take `load_tasks`, `Task` and `Example`, and the metrics by name. It imports `embedded`, and
knows nothing of models.
"""
