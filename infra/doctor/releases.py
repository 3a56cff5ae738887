"""Checks of the database and the index against this release."""

from collections.abc import Iterator

import sqlalchemy as sa

from infra.database import migrate
from infra.doctor.checks import Check, Finding, Servers
from infra.index import indices, mapping
from infra.index.conversion import FORMER_VERSION

LIVE = sa.text("SELECT index_name, document_version FROM generations WHERE state = 'live'")
KEPT_NAMES = sa.text("SELECT index_name FROM generations WHERE state <> 'dropped' OR removed_at IS NULL")


def schema(servers: Servers) -> Iterator[Finding]:
    """Find a schema that is not the schema of this release."""
    with servers.engine.connect() as connection:
        in_database = migrate.schema(connection)
    if in_database.is_newer:
        yield Finding(
            f"The database has migration {in_database.revision} of a later release",
            "Run the processes of the later release, or of the release before that one",
        )
    elif not in_database.is_current:
        missing = f"Migrations after {in_database.revision} are" if in_database.revision else "All migrations are"
        yield Finding(f"{missing} missing", "Run `consumers migrate`")


def document_version(servers: Servers) -> Iterator[Finding]:
    """Find a live index with documents of another release."""
    with servers.engine.connect() as connection:
        live = connection.execute(LIVE).one_or_none()
    if live is None:
        yield Finding("There is no live index", "Run `consumers migrate`")
    elif live.document_version > mapping.DOCUMENT_VERSION:
        yield Finding(
            f"{live.index_name} has documents of version {live.document_version}; this release writes up to version "
            f"{mapping.DOCUMENT_VERSION}, so no change becomes searchable",
            "Run `consumers index rollback` with the later release, or start the workers of the later release",
        )
    elif live.document_version < FORMER_VERSION:
        yield Finding(
            f"{live.index_name} has documents of version {live.document_version}; this release writes versions "
            f"{FORMER_VERSION} and {mapping.DOCUMENT_VERSION}, so new documents differ from old documents",
            "Run `consumers index rebuild`",
        )


def unused_indices(servers: Servers) -> Iterator[Finding]:
    """Find indices that no generation uses, left by a start or a rebuild that failed."""
    existing = indices.existing(servers.search, servers.settings.index_prefix)
    with servers.engine.connect() as connection:
        used = set(connection.execute(KEPT_NAMES).scalars())
    for name in sorted(existing.keys() - used):
        yield Finding(
            f"{name} belongs to no generation of this database",
            f"Unless another database uses it, delete it: DELETE /{name} in OpenSearch",
        )


CHECKS: tuple[Check, ...] = (schema, document_version, unused_indices)
