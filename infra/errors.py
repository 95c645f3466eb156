"""Error of the machine or the stack, with its cure."""


class StackError(RuntimeError):
    """Error of this machine or of the stack on it. The message says what happened, where, and how to cure it."""
