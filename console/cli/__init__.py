"""The command line: one file of commands per area."""
