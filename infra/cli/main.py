"""The command `consumers`: manage organizations, keys, imports and the index, and set up a deployment."""

import sys
from importlib.util import find_spec

import typer

from infra.accounts.organizations import OrganizationError
from infra.cli import setup
from infra.cli.doctor import doctor
from infra.cli.imports import app as import_app
from infra.cli.index import index_app
from infra.cli.keys import key_app
from infra.cli.operators import operator_app
from infra.cli.organizations import org_app
from infra.cli.transaction import DatabaseError
from infra.database.migrate import MigrationError
from infra.database.roles import RoleError
from infra.index.indices import SearchError
from infra.local.errors import LocalError
from infra.logs import discarded
from infra.operations.rebuild import RebuildError
from infra.operations.verify import VerificationError
from infra.settings import SettingsError

EXPECTED = (
    DatabaseError,
    LocalError,
    MigrationError,
    OrganizationError,
    RebuildError,
    RoleError,
    SearchError,
    SettingsError,
    VerificationError,
)
"""Errors printed as a single line. All further errors are bugs and print a stack trace."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def consumers() -> None:
    """Manage the consumers service.

    The addresses of the servers come from the environment variables
    DATABASE_URL, REDIS_URL and OPENSEARCH_URL. By default, the commands use
    the local servers started by `make up`.
    """


app.add_typer(org_app, name="org")
app.add_typer(key_app, name="key")
app.add_typer(operator_app, name="operator")
app.add_typer(import_app, name="import")
app.add_typer(index_app, name="index")
app.command("migrate")(setup.migrate_all)
app.command()(setup.demo)
app.command()(setup.alive)
app.command()(doctor)

# The local servers are an optional dependency, absent from the image of the service.
if find_spec("mirakuru"):
    from infra.local.up import up

    app.command(help="Start the service and its servers on this machine, with sample data, until Ctrl-C.")(up)


def main() -> None:
    try:
        with discarded():
            app()
    except EXPECTED as error:
        print(error, file=sys.stderr)
        sys.exit(1)
