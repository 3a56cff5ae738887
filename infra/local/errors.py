"""The error of local servers."""

from infra.errors import ExplainedError


class LocalError(ExplainedError):
    """Local servers cannot be started; the message is a single line with the fault and the remedy."""
