"""The base of every error that a user can mend: front ends show its one sentence and no traceback."""


class UserError(ValueError):
    """Bad input or usage: the message says what, where, and the remedy."""


def said(error: BaseException) -> str:
    """What an exception of a library says of itself, without the name of its class, which tells a user nothing."""
    if isinstance(error, KeyError) and error.args:
        return f"there is no {error.args[0]!r}"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "it does not say why"
