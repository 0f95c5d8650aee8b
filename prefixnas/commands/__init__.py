"""The commands of `prefixnas`, one file each: `HELP` and `main(argv, prog)`."""
