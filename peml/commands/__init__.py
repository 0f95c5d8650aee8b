"""The command line of `peml`, one a file: `HELP`, `parser(prog)` and `main(argv, prog)`.

Commands read flags, call what Python users call, and print. They may import every room, inside
`main`, so that `--help` loads nothing heavy; nothing imports them but `peml.__main__`.
"""
