"""Upgrade the schema of the database to the version this code needs, and make the sealing key."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from infra.database import roles, sealing_keys
from infra.database.engine import sqlalchemy_url

LOCK = 0x636F6E73
"""Advisory lock: if several processes start at the same time, their migrations run in sequence."""
LOCK_MIGRATIONS = sa.text("SELECT pg_advisory_lock(:lock)")
UNLOCK_MIGRATIONS = sa.text("SELECT pg_advisory_unlock(:lock)")


def upgrade(database_url: str, *, grant_to: str | None = None) -> None:
    """Run the missing migrations, and make the sealing key unless there is one.

    Safe at every start, and by several processes at the same time.

    Args:
        database_url: with the role that owns the tables.
        grant_to: a role that gets the rights on the tables, for all other processes and commands.

    Raises:
        RoleError: the role in the URL may not change the schema, or the role `grant_to` does not exist.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = sa.create_engine(sqlalchemy_url(database_url), hide_parameters=True)
    try:
        with engine.connect() as connection:
            roles.require_owner(connection)
            connection.execute(LOCK_MIGRATIONS, {"lock": LOCK})
            connection.commit()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            sealing_keys.ensure(connection)
            if grant_to is not None:
                roles.grant(connection, grant_to)
            connection.commit()
            connection.execute(UNLOCK_MIGRATIONS, {"lock": LOCK})
            connection.commit()
    finally:
        engine.dispose()
