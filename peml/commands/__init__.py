"""The commands of `peml`, one file each: `HELP` and `main(argv, prog)`."""
