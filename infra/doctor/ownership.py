"""Checks of the installation: its indices and its database belong to it alone."""

from collections.abc import Iterator

import sqlalchemy as sa

from infra.database import installation
from infra.doctor.checks import Check, Finding, Servers
from infra.index import indices, ownership
from infra.index.ownership import ForeignIndexError

KNOWN = sa.text("SELECT index_name FROM generations WHERE removed_at IS NULL")


def own_index(servers: Servers) -> Iterator[Finding]:
    """Find indices of other installations under the index prefix."""
    prefix = servers.settings.index_prefix
    existing = indices.existing(servers.search, prefix)
    with servers.engine.connect() as connection:
        own = installation.read(connection)
        try:
            ownership.require_own(connection, existing, prefix)
        except ForeignIndexError as error:
            yield Finding(str(error).partition(": ")[0], str(error).partition(": ")[2])
            return
        known = set(connection.execute(KNOWN).scalars())
    for name, index in sorted(existing.items()):
        if index.installation == own and name not in known:
            yield Finding(
                f"The index {name} of this installation is in no row of the database",
                "Delete the index: it was left by a start that failed, or by a database of before a restore",
            )
        if index.installation not in {None, own}:
            yield Finding(
                f"The index {name} of another installation ({index.installation}) has the same prefix",
                "Set INDEX_PREFIX of the other installation to another prefix, or delete the index if nothing uses it",
            )


def copied_database(servers: Servers) -> Iterator[Finding]:
    """Find a database that was copied, because a copy and its original have one installation id."""
    with servers.engine.connect() as connection:
        if installation.is_copy(connection):
            yield Finding(
                "The database was copied or restored from another, and has the same installation id",
                "If the original is still in use, stop this copy at once and set another INDEX_PREFIX for it; if the "
                "original is gone, say so with the statement under Restore, in docs/backup.md",
            )


CHECKS: tuple[Check, ...] = (own_index, copied_database)
