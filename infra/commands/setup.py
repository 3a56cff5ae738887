"""`consumers migrate` and `consumers demo`: what a new deployment runs once, and every later one again."""

import typer

from infra import generations, migrate, sample
from infra.commands.transaction import database_told
from infra.settings import load, local_folder


def migrate_all() -> None:
    """Bring the database's schema to this version, and create the first index."""
    settings = load()
    with database_told():
        migrate.upgrade(settings.database_url)
        generations.ensure(settings)


def demo() -> None:
    """Create the organization demo with sample data, unless there is one, and print its key."""
    with database_told():
        key = sample.ensure_demo(load(), local_folder())
    typer.echo(key)
