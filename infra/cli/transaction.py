"""How a command works with the database: one command, one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from infra import settings
from infra.database.engine import open_engine


class DatabaseError(Exception):
    """The database cannot be worked with; the message is one line for the person who gave the command."""


@contextmanager
def transaction() -> Iterator[sa.Connection]:
    """A connection whose work is committed at the end, unless the command fails.

    Raises:
        DatabaseError: as below.
        SettingsError: a variable in the environment is wrong.
    """
    engine = open_engine(settings.load())
    try:
        with database_errors_as_one_line(), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def database_errors_as_one_line() -> Iterator[None]:
    """Turn what is wrong with the database, or with an argument for it, into one line.

    Raises:
        DatabaseError: it cannot be reached, has not been migrated, or cannot store what was given.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise DatabaseError("an argument is not UTF-8") from error
    except sa.exc.OperationalError as error:
        raise DatabaseError(f"the database cannot be used: {_line(error)}") from error
    except sa.exc.ProgrammingError as error:
        raise DatabaseError(f"the database is not up to date, `consumers migrate` helps: {_line(error)}") from error


def _line(error: sa.exc.DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]
