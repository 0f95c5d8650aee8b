"""The models and the generated text suite that ship inside the package.

Others take `suite` (tasks by name, examples by seed) and `corpus`; the models' folders are loaded
by name (``embedded:llama``). It imports nothing else of PEML.
"""
