"""The command line, one command a file: `HELP`, `parser(prog)` and `main(argv, prog)`.

For `python -m prefixnas`, and for packages with commands of their own (`peml`). May import: all.
"""
