"""The one exception for input that a user can put right."""


class DataError(ValueError):
    """Input is wrong. The message names the file, the row or key, what was expected and what to do."""
