"""The command line: parse a command, call its function, print what it returns."""
