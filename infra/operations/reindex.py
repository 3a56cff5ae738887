"""Writing some consumers to the index again as they are, through the outbox: as changes that nobody waits for.

What is asked for is checked and counted here, alike for commands, requests and tasks; `indexer/verify/reindex.py` does
it, as a run like those that verify.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from infra.accounts.organizations import OrganizationError, named_environment
from infra.filters.clauses import Clause, clause
from infra.filters.language import FilterError, parse
from infra.operations import verify
from infra.wire import time

MOST_IDS = 10_000
"""Consumers that may be named one by one."""

CHOSEN = """
    FROM consumers c WHERE (CAST(:ids AS text[]) IS NULL OR c.id = ANY(:ids))
        AND (CAST(:environment_id AS int) IS NULL OR c.environment_id = :environment_id)
        AND (CAST(:updated_since AS timestamptz) IS NULL OR c.updated_at >= :updated_since)
        AND (CAST(:failed_since AS timestamptz) IS NULL OR EXISTS (
            SELECT FROM outbox o WHERE o.consumer_id = c.id AND o.attempts > 0 AND o.created_at >= :failed_since))"""
COUNT = sa.text(f"SELECT count(*) {CHOSEN}")
# OpenSearch takes no more in one query.
FAILED = sa.text("""
    SELECT DISTINCT consumer_id FROM outbox
    WHERE environment_id = :environment_id AND attempts > 0 AND created_at >= :failed_since LIMIT 65536""")
REGION = sa.text("""
    SELECT org.region FROM organizations org JOIN environments e ON e.organization_id = org.id
    WHERE e.id = :environment_id""")


class ReindexError(Exception):
    """What was asked for makes no sense; the message is one line for whoever asked."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """What is wrong, as `Asked` has it."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which consumers, as people say it: all that is given must hold."""

    ids: list[str] | None = None
    environment: str | None = None
    """Such as `shop:live`."""
    filter: str | None = None
    """As lists take it (docs/filters.md); of an environment."""
    updated_since: datetime | None = None
    failed_since: datetime | None = None
    """Those of which a document was refused, of changes since then."""


class Scope(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The same, as it is kept with the run; the ids in order."""

    ids: list[str] | None = None
    environment_id: int | None = None
    filter: str | None = None
    updated_since: datetime | None = None
    failed_since: datetime | None = None


class Counted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a reindex would be of."""

    consumers: int
    is_dry_run: bool = True


def scope(connection: sa.Connection, asked: Asked) -> Scope:
    """What is asked for, if it makes sense.

    Raises:
        ReindexError: it makes none.
    """
    if msgspec.structs.replace(asked, ids=asked.ids or None) == Asked():
        raise ReindexError("ids", "say which consumers: for all there is a rebuild")
    if asked.ids and len(asked.ids) > MOST_IDS:
        raise ReindexError("ids", f"at most {MOST_IDS:,}")
    if asked.filter is not None and asked.environment is None:
        raise ReindexError("environment", "a filter is of an environment")
    try:
        number = named_environment(connection, asked.environment) if asked.environment is not None else None
    except OrganizationError as error:
        raise ReindexError("environment", str(error)) from None
    try:
        if asked.filter is not None:
            parse(asked.filter)
    except FilterError as error:
        raise ReindexError("filter", str(error)) from None
    return Scope(
        ids=sorted(set(asked.ids)) if asked.ids else None,
        environment_id=number,
        filter=asked.filter,
        updated_since=_moment(asked.updated_since),
        failed_since=_moment(asked.failed_since),
    )


def request(connection: sa.Connection, wanted: Scope) -> int:
    """Ask for it; answer the number of the run. To be called in a transaction."""
    values = msgspec.json.encode(wanted).decode()
    return verify.request(connection, "reindex", environment_id=wanted.environment_id, scope=values)


def query(connection: sa.Connection, wanted: Scope) -> Clause | None:
    """What finds them in the index, where a filter is given: what that matches the index alone can tell."""
    if wanted.filter is None:
        return None
    region = connection.execute(REGION, {"environment_id": wanted.environment_id}).scalar_one()
    found: list[Clause] = [
        {"term": {"environmentId": str(wanted.environment_id)}},
        clause(parse(wanted.filter), region),
    ]
    if wanted.ids:
        found.append({"terms": {"id": wanted.ids}})
    if wanted.updated_since:
        found.append({"range": {"updatedAt": {"gte": time(wanted.updated_since)}}})
    if wanted.failed_since:
        found.append({"terms": {"id": list(connection.execute(FAILED, msgspec.structs.asdict(wanted)).scalars())}})
    return {"bool": {"filter": found}}


def count(connection: sa.Connection, wanted: Scope) -> int:
    """How many there are in the database, whatever the filter says."""
    found: int = connection.execute(COUNT, msgspec.structs.asdict(wanted)).scalar_one()
    return found


def matches(client: OpenSearch, alias: str, found_by: Clause) -> int:
    """How many the index has.

    Args:
        client: of any kind.
        alias: by which it is read.
        found_by: a `query`.

    Raises:
        OpenSearchException: the index does not answer.
    """
    answer: Any = client.count(index=alias, body={"query": found_by})
    if isinstance(answer, str):
        answer = msgspec.json.decode(answer)
    return int(answer["count"])


def _moment(given: datetime | None) -> datetime | None:
    """In UTC, to the millisecond, as rows and documents have it; without a zone it is in UTC."""
    if given is None:
        return None
    utc = given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
