"""The one error type whose message is meant for the person at the terminal."""


class DevclusterError(Exception):
    """Says what was found, what was expected and what to do; shown without a traceback."""
