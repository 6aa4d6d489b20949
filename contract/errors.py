"""Errors in words, for logs and for what is kept of a failure."""


def error_text(error: BaseException) -> str:
    """Return an error's type and text; `repr` of redis-py's errors has no text."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
