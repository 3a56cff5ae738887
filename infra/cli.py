"""The command `consumers`: starts processes, sends tasks by name, and looks after keys and data."""

import sys
from importlib.util import find_spec

import typer

from infra.local.errors import LocalError
from infra.settings import SettingsError

EXPECTED = (LocalError, SettingsError)
"""Errors whose message is all that the caller needs."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def consumers() -> None:
    """Run and look after the consumers service."""


# The servers are an extra: an image that holds only the service is installed without it.
if find_spec("mirakuru"):
    from infra.local.up import up

    app.command()(up)


def main() -> None:
    try:
        app()
    except EXPECTED as error:
        print(error, file=sys.stderr)
        sys.exit(1)
