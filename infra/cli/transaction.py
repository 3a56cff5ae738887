"""Database access for commands: a command is a transaction, and a database error is a line of output."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from infra import settings
from infra.database.engine import open_engine
from infra.database.failures import connection_failure
from infra.errors import ExplainedError
from infra.index.ownership import refuse_foreign_index

INSUFFICIENT_PRIVILEGE = "42501"


class DatabaseError(ExplainedError):
    """The database cannot be used. The message is a single line, for the caller."""


@contextmanager
def transaction() -> Iterator[sa.Connection]:
    """Open a connection, and commit at the end unless the command fails.

    Raises:
        ForeignIndexError: the index belongs to another installation.
        DatabaseError: see `database_errors_as_one_line`.
        SettingsError: an environment variable is missing or invalid.
    """
    configured = settings.load()
    refuse_foreign_index(configured)
    engine = open_engine(configured)
    try:
        with database_errors_as_one_line(), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def database_errors_as_one_line() -> Iterator[None]:
    """Convert errors of the database, and of arguments the database cannot store, to errors with a message of one line.

    Raises:
        DatabaseError: the database cannot be reached, has not been migrated, does not permit the command, or cannot
            store an argument.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise DatabaseError("an argument is not UTF-8") from error
    except sa.exc.OperationalError as error:
        raise DatabaseError(f"the database (DATABASE_URL) cannot be used: {connection_failure(error)}") from error
    except sa.exc.ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == INSUFFICIENT_PRIVILEGE:
            raise DatabaseError(
                f"the role in DATABASE_URL lacks a right ({_first_line(error)}): "
                "run `consumers migrate --grant-to ROLE` as the owner of the tables"
            ) from error
        raise DatabaseError(
            f"the database is not up to date: run `consumers migrate` ({_first_line(error)})"
        ) from error


def _first_line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
