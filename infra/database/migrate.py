"""Upgrade the schema of the database to the version this code needs, and make the sealing key.

Each migration is a transaction of its own, and runs while the release before serves requests. A change of a table waits
for running transactions, and every later query of the table waits behind the change. Each wait for a lock is therefore
short: the migration gives up, lets the queries pass, and tries again.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from infra.backoff import Backoff
from infra.database import addresses, pooling, revisions, roles, sealing_keys
from infra.database.engine import sqlalchemy_url
from infra.errors import ExplainedError

LOCK = 0x636F6E73
"""Advisory lock: if several processes start at the same time, their migrations run in sequence."""
LOCK_MIGRATIONS = sa.text("SELECT pg_try_advisory_lock(:lock)")
UNLOCK_MIGRATIONS = sa.text("SELECT pg_advisory_unlock(:lock)")
LIMIT_LOCK_WAITS = sa.text("SET lock_timeout = '1s'")
"""The longest that a migration waits for a lock, and so the longest that queries wait behind a migration."""
LOCK_ERRORS = {"55P03", "40P01"}
"""PostgreSQL's codes of a lock that was not granted in time, and of a deadlock."""
LOCK_PAUSE_SECONDS = 0.5
"""Pause before another attempt to get the lock of the migrations."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
PATIENCE_SECONDS = 600.0
"""Time for all attempts. A transaction that keeps a table in use for longer has to be ended by an operator."""


class MigrationError(ExplainedError):
    """The schema cannot be upgraded at present. The message is a line for the operator."""


class Schema(NamedTuple):
    """The migrations in a database, compared with those of this code."""

    revision: str | None
    """The last migration; None in a new database."""
    is_current: bool
    is_newer: bool
    """Whether a later release has migrated the database."""


def upgrade(database_url: str, *, grant_to: str | None = None, report: Callable[[str], None] = lambda _: None) -> None:
    """Run the missing migrations, and make the sealing key unless there is one.

    Safe at every start, and by several processes at the same time. The schema of a later release is left as it is,
    because the release before a migration runs on the schema after it.

    Args:
        database_url: with the role that owns the tables.
        grant_to: a role that gets the rights on the tables, for all other processes and commands.
        report: receives a line if the schema is of a later release, if another process migrates the database, and for
            each attempt that found a table in use.

    Raises:
        RoleError: the role in the URL may not change the schema, or the role `grant_to` does not exist.
        MigrationError: a table stayed in use.
    """
    config = _config()
    engine = sa.create_engine(sqlalchemy_url(database_url), hide_parameters=True)
    # The lock of the migrations belongs to the session.
    pooling.check_sessions(engine, {}, {"timezone": "UTC"})
    try:
        with engine.connect() as connection:
            roles.require_owner(connection)
            _lock_migrations(connection, report)
            connection.execute(LIMIT_LOCK_WAITS)
            connection.commit()
            config.attributes["connection"] = connection
            current = schema(connection)
            connection.commit()
            if current.is_newer:
                report(
                    f"the database has migration {current.revision} of a later release: nothing is migrated. The "
                    "release before that one runs on this schema; an earlier release may not"
                )
            else:
                if not current.is_current:
                    _upgrade_patiently(config, connection, report)
                    connection.commit()
                if kept := addresses.store_under_keys(connection):
                    report(
                        f"{len(kept)} e-mail addresses have another spelling of an address in use: both are kept. "
                        "`consumers doctor --only addresses` names the consumers"
                    )
            sealing_keys.ensure(connection)
            if grant_to is not None:
                roles.grant(connection, grant_to)
            connection.commit()
            connection.execute(UNLOCK_MIGRATIONS, {"lock": LOCK})
            connection.commit()
    finally:
        engine.dispose()


def _lock_migrations(connection: sa.Connection, report: Callable[[str], None]) -> None:
    """Wait for the lock of the migrations.

    No transaction is open meanwhile: `CREATE INDEX CONCURRENTLY` in the process with the lock would wait for it.
    """
    is_reported = False
    while not connection.execute(LOCK_MIGRATIONS, {"lock": LOCK}).scalar_one():
        connection.rollback()
        if not is_reported:
            report("another process migrates the database: waiting until it is done")
            is_reported = True
        time.sleep(LOCK_PAUSE_SECONDS)


def schema(connection: sa.Connection) -> Schema:
    """Return the migrations in the database, compared with those of this code."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    revision = MigrationContext.configure(connection).get_current_revision()
    return Schema(revision, revision == head, revisions.is_of_later_release(revision))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(revisions.FOLDER))
    return config


def _upgrade_patiently(config: Config, connection: sa.Connection, report: Callable[[str], None]) -> None:
    """Run the missing migrations. After a lock that was not granted, continue with the same migration, until the time
    for all attempts is over.

    Raises:
        MigrationError: a table stayed in use.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    while True:
        try:
            command.upgrade(config, "head")
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in LOCK_ERRORS:
                raise
            connection.rollback()
            seconds = backoff.pause()
            if time.monotonic() + seconds > until:
                raise MigrationError(
                    f"a table stayed in use for {PATIENCE_SECONDS / 60:.0f} minutes, so the schema is not up to date: "
                    "end long transactions (SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start), "
                    "and run `consumers migrate` again"
                ) from error
            report(f"a table is in use by a long transaction: the next attempt follows in {seconds:.1f} seconds")
            time.sleep(seconds)
        else:
            return
