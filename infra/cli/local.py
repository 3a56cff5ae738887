"""`consumers up`, to run everything on this machine."""

from infra.local.up import up as start


def up() -> None:
    """Start the service and its servers on this machine, with sample data, until Ctrl-C."""
    start()
