"""The base of every error that a user can mend: front ends show its one sentence and no traceback."""


class UserError(ValueError):
    """Bad input or usage: the message says what, where, and the remedy."""
