"""Many runs by hyper-parameters: Optuna's study of an experiment file; `nni` runs the same file.

For commands. May import: everything up to launch.
"""
