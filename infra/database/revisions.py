"""The migrations of this release, by the names of their files.

A process that only compares the schema with its release reads no file of Alembic, which takes 11 MB of memory.
"""

from pathlib import Path

import sqlalchemy as sa
import structlog

log = structlog.get_logger()

FOLDER = Path(__file__).parent / "migrations"
KNOWN = frozenset(file.name.partition("_")[0] for file in (FOLDER / "versions").glob("*.py"))
"""The revisions that this release has."""
REVISION = sa.text("SELECT version_num FROM alembic_version")


def is_of_later_release(revision: str | None) -> bool:
    """Return whether a later release has migrated the database to a revision; None is a new database."""
    return revision is not None and revision not in KNOWN


def warn_if_newer(connection: sa.Connection) -> None:
    """Log a warning if a later release has migrated the database. This release goes on."""
    revision = connection.execute(REVISION).scalar_one()
    if is_of_later_release(revision):
        log.warning("schema_of_later_release", revision=revision, advice="consumers doctor --only releases")
