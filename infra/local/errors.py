"""What can go wrong with local servers, told in one line that says what to do."""


class LocalError(Exception):
    """Local servers cannot be started; the message is one line for the person who asked for them."""
