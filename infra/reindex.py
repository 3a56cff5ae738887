"""Writing some consumers to the index again as they are, through the outbox: as changes that nobody waits for."""

from datetime import datetime

import msgspec
import sqlalchemy as sa

ROWS = 5000
"""Of one transaction."""

CHOSEN = """
    FROM consumers c WHERE c.id > :after
        AND (CAST(:ids AS text[]) IS NULL OR c.id = ANY(:ids))
        AND (CAST(:environment_id AS int) IS NULL OR c.environment_id = :environment_id)
        AND (CAST(:updated_since AS timestamptz) IS NULL OR c.updated_at >= :updated_since)
        AND (CAST(:failed_since AS timestamptz) IS NULL OR EXISTS (
            SELECT FROM outbox o WHERE o.consumer_id = c.id AND o.attempts > 0 AND o.created_at >= :failed_since))"""
COUNT = sa.text(f"SELECT count(*) {CHOSEN}")
APPEND = sa.text(f"""
    WITH chosen AS (SELECT c.environment_id, c.id, c.version {CHOSEN} ORDER BY c.id LIMIT :rows),
    appended AS (
        INSERT INTO outbox (environment_id, consumer_id, version, lane)
        SELECT environment_id, id, version, 'bulk' FROM chosen)
    SELECT count(*) AS rows, max(id) AS last FROM chosen""")


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Which consumers: all that is given must hold."""

    ids: list[str] | None = None
    environment_id: int | None = None
    updated_since: datetime | None = None
    failed_since: datetime | None = None
    """Those of which a document was refused, of changes since then."""


class Reindexed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    consumers: int
    is_dry_run: bool


def count(engine: sa.Engine, scope: Scope) -> Reindexed:
    """How many there are."""
    with engine.connect() as connection:
        values = msgspec.structs.asdict(scope) | {"after": ""}
        return Reindexed(consumers=connection.execute(COUNT, values).scalar_one(), is_dry_run=True)


def reindex(engine: sa.Engine, scope: Scope) -> Reindexed:
    """Have them written again, in short transactions. What is interrupted may be asked for again."""
    values = msgspec.structs.asdict(scope) | {"after": "", "rows": ROWS}
    done = 0
    while True:
        with engine.begin() as connection:
            part = connection.execute(APPEND, values).one()
        done += part.rows
        if part.rows < ROWS:
            return Reindexed(consumers=done, is_dry_run=False)
        values["after"] = part.last
