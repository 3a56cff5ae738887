"""`consumers migrate` and `consumers demo`, to set up a deployment, and `consumers alive`, to check its parts.

Every release runs `migrate` again. Both commands are safe to repeat.
"""

from functools import partial
from typing import Annotated, Literal

import typer

from infra.cli.transaction import database_errors_as_one_line
from infra.database import activity
from infra.database.engine import open_engine
from infra.database.migrate import upgrade
from infra.doctor.catalog import fault_lines
from infra.index.ownership import refuse_foreign_index
from infra.local import sample
from infra.operations import first_generation
from infra.settings import load, local_folder

HANGING = 3
"""Exit status of `consumers alive` for a part that is connected and silent."""


def migrate(
    grant_to: Annotated[
        str | None,
        typer.Option(metavar="ROLE", help="Role of PostgreSQL that gets the rights for everything but migrations."),
    ] = None,
) -> None:
    """Migrate the database to this release, and create the first index.

    Run this command before the processes of a new release start, as the
    role that owns the tables. The processes of the release before continue
    meanwhile. A second run changes nothing, and neither does a run of the
    release before. Faults that `consumers doctor` finds are printed.

    Exit status: 0 if both are done; 1 if the database or OpenSearch cannot
    be used, the role may not change the tables, or a long transaction kept
    a table in use for 10 minutes.
    """
    settings = load()
    with database_errors_as_one_line():
        upgrade(settings.session_url, grant_to=grant_to, report=partial(typer.echo, err=True))
        first_generation.ensure(settings)
    for line in fault_lines(settings):
        typer.echo(line, err=True)


def demo() -> None:
    """Create the organization demo with sample data, unless it exists, and print a key.

    The key is stored in a file, and a second run prints the same key. Exit
    status: 0, or 1 if the database cannot be used.
    """
    settings = load()
    refuse_foreign_index(settings)
    with database_errors_as_one_line():
        key = sample.ensure_demo(settings, local_folder())
    typer.echo(key)


def alive(
    part: Annotated[
        Literal["live", "bulk", "clock"],
        typer.Argument(help="The worker of a lane (live, bulk), or clock: beat's process with the fallback poller."),
    ],
    within: Annotated[float, typer.Option(help="Longest allowed silence, in seconds.", min=1)] = 30,
) -> None:
    """Check for a recent database query by a part of the indexer.

    The part may have several processes; LIVENESS_FILE shows whether a single
    one advances. Exit status: 0 after a recent query; 1 if the part is not connected, or
    the database cannot be used; 3 if the part is connected and silent, so
    that its process hangs.
    """
    engine = open_engine(load())
    try:
        with database_errors_as_one_line(), engine.connect() as connection:
            seconds = activity.seconds_since_query(connection, part)
    finally:
        engine.dispose()
    if seconds is None or seconds > within:
        typer.echo(f"{part} is silent" + ("" if seconds is None else f" for {seconds:.0f} seconds"), err=True)
        raise typer.Exit(1 if seconds is None else HANGING)
