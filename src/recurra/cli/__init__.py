"""The command line: one command, one file; :mod:`recurra.cli.main` holds the table."""
