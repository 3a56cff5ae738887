"""The error of local servers."""


class LocalError(Exception):
    """Local servers cannot be started; the message is a single line with the fault and the remedy."""
