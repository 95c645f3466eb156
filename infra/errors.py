"""What goes wrong with a machine, said once, with its cure."""


class StackError(RuntimeError):
    """Something about this machine or the stack on it: what, where, and how to cure it."""
