"""Errors of the command `consumers`."""


class ExplainedError(Exception):
    """An error whose message is a line for the operator, without a stack trace. Every other error is a bug."""
