"""What was trained, on the disk and back.

Others take `save_adapter`, and `load`, `evaluate` and `export`, which users call as `peml.load` and
so on. It imports every room below it: `model`, `tasks`, `prefix`, `methods`, `batches`, `answers`.
"""
