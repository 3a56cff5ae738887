"""The installation: a database, with the indices and the keys in Redis that belong to the database.

Several installations can share OpenSearch and Redis. Each index carries the id of its installation in the mapping's
`_meta`, and each key in Redis begins with the index prefix and the id, so no installation takes those of another.
"""

import time
from collections.abc import Callable
from functools import cache

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import OperationalError, ProgrammingError

from infra.database.engine import open_engine
from infra.logs import error_kind
from infra.settings import Settings

log = structlog.get_logger()

UNDEFINED_TABLE = "42P01"
WAIT_SECONDS = 1.0

# A database is identified by its server's system identifier and its number there. Both change in a copy.
IDENTITY = """(
    SELECT system_identifier || ':' || (SELECT oid FROM pg_database WHERE datname = current_database())
    FROM pg_control_system())"""
READ = sa.text("SELECT CAST(id AS text) FROM installation")
IS_COPY = sa.text(f"SELECT EXISTS (SELECT FROM installation WHERE database <> {IDENTITY})")
RENEW_COPY = sa.text(f"""
    UPDATE installation SET id = gen_random_uuid(), database = {IDENTITY} WHERE database <> {IDENTITY}""")


class InstallationMissing(Exception):  # noqa: N818 (named for the state of the database)
    """The database has no installation id."""

    def __init__(self) -> None:
        super().__init__("The database has no installation id: run `consumers migrate`")


def read(connection: sa.Connection) -> str:
    """Return the id of the database's installation.

    Raises:
        InstallationMissing: the database is not migrated to this release.
    """
    try:
        installation_id: str | None = connection.execute(READ).scalar_one_or_none()
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != UNDEFINED_TABLE:
            raise
        raise InstallationMissing from error
    if installation_id is None:
        raise InstallationMissing
    return installation_id


def is_copy(connection: sa.Connection) -> bool:
    """Whether the database was copied from the database that got the id, or restored elsewhere."""
    return bool(connection.execute(IS_COPY).scalar_one())


def renew_copy(connection: sa.Connection) -> None:
    """Make a new id if the database is a copy of another. The caller knows that the copy has no index yet."""
    connection.execute(RENEW_COPY)


@cache
def id_of(settings: Settings) -> str:
    """Return the id of an installation; read from the database once in each process.

    Raises:
        InstallationMissing: the database is not migrated to this release.
        DBAPIError: the database does not answer.
    """
    engine = open_engine(settings)
    try:
        with engine.connect() as connection:
            return read(connection)
    finally:
        engine.dispose()


def wait_for_id(settings: Settings, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Return the id of an installation, once the database answers.

    Args:
        settings: with the address of the database.
        meanwhile: called after each attempt that got no answer.

    Raises:
        InstallationMissing: the database is not migrated to this release.
    """
    while True:
        try:
            return id_of(settings)
        except OperationalError as error:
            log.warning("database_awaited", reason=error_kind(error))
            meanwhile()
            time.sleep(WAIT_SECONDS)


def key_prefix(index_prefix: str, installation_id: str) -> str:
    """Return the beginning of every key of an installation in Redis."""
    return f"{index_prefix}:{installation_id}:"
