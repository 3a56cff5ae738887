"""`consumers migrate` and `consumers demo`: what a new deployment runs once, and every later one again.

And `consumers alive`, by which a container is known to work.
"""

from typing import Annotated, Literal

import typer

from infra.cli.transaction import database_errors_as_one_line
from infra.database import activity, migrate
from infra.database.engine import open_engine
from infra.index import generations
from infra.local import sample
from infra.settings import load, local_folder


def migrate_all() -> None:
    """Bring the database's schema to this version, and create the first index."""
    settings = load()
    with database_errors_as_one_line():
        migrate.upgrade(settings.database_url)
        generations.ensure(settings)


def demo() -> None:
    """Create the organization demo with sample data, unless there is one, and print its key."""
    with database_errors_as_one_line():
        key = sample.ensure_demo(load(), local_folder())
    typer.echo(key)


def alive(
    part: Annotated[Literal["live", "bulk", "clock"], typer.Argument(help="A worker's lane, or beat's poller.")],
    within: Annotated[float, typer.Option(help="Seconds.", min=1)] = 30,
) -> None:
    """Tell by the exit code whether a part of the indexer has looked into the database lately."""
    with database_errors_as_one_line(), open_engine(load()).connect() as connection:
        seconds = activity.seconds_since_query(connection, part)
    if seconds is None or seconds > within:
        typer.echo(f"{part} is silent" + ("" if seconds is None else f" for {seconds:.0f} seconds"), err=True)
        raise typer.Exit(1)
