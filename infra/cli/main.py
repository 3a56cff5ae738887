"""The command `consumers`: starts processes, sends tasks by name, and looks after keys and data."""

import sys
from importlib.util import find_spec

import typer

from infra.accounts.organizations import OrganizationError
from infra.cli import rebuild, reindex, setup
from infra.cli.imports import app as import_app
from infra.cli.index import index_app
from infra.cli.keys import key_app
from infra.cli.organizations import org_app
from infra.cli.transaction import DatabaseError
from infra.index.generations import SearchError
from infra.local.errors import LocalError
from infra.operations.rebuild import RebuildError
from infra.operations.verify import VerificationError
from infra.settings import SettingsError

EXPECTED = (
    DatabaseError,
    LocalError,
    OrganizationError,
    RebuildError,
    SearchError,
    SettingsError,
    VerificationError,
)
"""Errors whose message is all that the caller needs."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def consumers() -> None:
    """Run and look after the consumers service."""


app.add_typer(org_app, name="org")
app.add_typer(key_app, name="key")
app.add_typer(import_app, name="import")
app.add_typer(index_app, name="index")
for command in (*rebuild.COMMANDS, reindex.reindex):
    index_app.command()(command)
app.command("migrate")(setup.migrate_all)
app.command()(setup.demo)
app.command()(setup.alive)

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
