"""Reindex requests: choose consumers, count the choice, and request a run to write the documents again, unchanged.

Commands, HTTP requests and tasks share the checks and the counts here. `indexer/verify/reindex.py` executes the run,
by an outbox row for each chosen consumer, in the lane `bulk`.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from infra.accounts.organizations import OrganizationError, named_environment
from infra.filters.clauses import Clause, clause
from infra.filters.language import FilterError, parse
from infra.operations.verify import request_run
from infra.wire import time

MAX_IDS = 10_000
"""Longest list of ids in a request."""
MAX_TERMS = 65_536
"""OpenSearch's limit for the terms of a query (`index.max_terms_count`)."""

CHOSEN = """
    FROM consumers c WHERE (CAST(:ids AS text[]) IS NULL OR c.id = ANY(:ids))
        AND (CAST(:environment_id AS int) IS NULL OR c.environment_id = :environment_id)
        AND (CAST(:updated_since AS timestamptz) IS NULL OR c.updated_at >= :updated_since)
        AND (CAST(:failed_since AS timestamptz) IS NULL OR EXISTS (
            SELECT FROM outbox o WHERE o.consumer_id = c.id AND o.attempts > 0 AND o.created_at >= :failed_since))"""
COUNT = sa.text(f"SELECT count(*) {CHOSEN}")
FAILED = sa.text(f"""
    SELECT DISTINCT consumer_id FROM outbox
    WHERE environment_id = :environment_id AND attempts > 0 AND created_at >= :failed_since LIMIT {MAX_TERMS}""")
REGION = sa.text("""
    SELECT org.region FROM organizations org JOIN environments e ON e.organization_id = org.id
    WHERE e.id = :environment_id""")


class ReindexError(Exception):
    """The request is invalid. The message is a single line, for the caller."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """The field of `ReindexRequest` at fault."""


class ReindexRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions for the consumers to reindex, as requested. A consumer must meet every condition given."""

    ids: list[str] | None = None
    environment: str | None = None
    """Organization and mode, such as `shop:live`."""
    filter: str | None = None
    """A list filter (docs/filters.md); needs an environment."""
    updated_since: datetime | None = None
    failed_since: datetime | None = None
    """Consumers with a refused document for a change at this time or later."""


class ReindexScope(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A checked request, as stored with the run. The ids are sorted; times are in UTC.

    A trigger removes the filter when the run is finished.
    """

    ids: list[str] | None = None
    environment_id: int | None = None
    filter: str | None = None
    updated_since: datetime | None = None
    failed_since: datetime | None = None


class Counted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The number of consumers a reindex would write."""

    consumers: int
    """The number of consumers."""
    is_dry_run: bool = True
    """Always true: nothing was written."""

    example: ClassVar[dict[str, Any]] = {"consumers": 5000, "isDryRun": True}


def check_request(connection: sa.Connection, request: ReindexRequest) -> ReindexScope:
    """Check a request and return the scope.

    Raises:
        ReindexError: the request is invalid.
    """
    if msgspec.structs.replace(request, ids=request.ids or None) == ReindexRequest():
        raise ReindexError("ids", "choose consumers by at least one condition; to write all of them, use a rebuild")
    if request.ids and len(request.ids) > MAX_IDS:
        raise ReindexError("ids", f"at most {MAX_IDS:,} ids are allowed")
    if request.filter is not None and request.environment is None:
        raise ReindexError("environment", "a filter needs an environment")
    try:
        number = named_environment(connection, request.environment) if request.environment is not None else None
    except OrganizationError as error:
        raise ReindexError("environment", str(error)) from None
    try:
        if request.filter is not None:
            parse(request.filter)
    except FilterError as error:
        raise ReindexError("filter", str(error)) from None
    return ReindexScope(
        ids=sorted(set(request.ids)) if request.ids else None,
        environment_id=number,
        filter=request.filter,
        updated_since=_utc_milliseconds(request.updated_since),
        failed_since=_utc_milliseconds(request.failed_since),
    )


def request_reindex(connection: sa.Connection, scope: ReindexScope) -> int:
    """Request a reindex, in the caller's transaction, and return the id of the run."""
    stored = msgspec.json.encode(scope).decode()
    return request_run(connection, "reindex", environment_id=scope.environment_id, scope=stored)


def index_query(connection: sa.Connection, scope: ReindexScope) -> Clause | None:
    """Return the query for the chosen consumers in the index; None without a filter.

    Only OpenSearch can evaluate a filter, so the query holds all conditions.
    """
    if scope.filter is None:
        return None
    region = connection.execute(REGION, {"environment_id": scope.environment_id}).scalar_one()
    clauses: list[Clause] = [
        {"term": {"environmentId": str(scope.environment_id)}},
        clause(parse(scope.filter), region),
    ]
    if scope.ids:
        clauses.append({"terms": {"id": scope.ids}})
    if scope.updated_since:
        clauses.append({"range": {"updatedAt": {"gte": time(scope.updated_since)}}})
    if scope.failed_since:
        clauses.append({"terms": {"id": list(connection.execute(FAILED, msgspec.structs.asdict(scope)).scalars())}})
    return {"bool": {"filter": clauses}}


def count_rows(connection: sa.Connection, scope: ReindexScope) -> int:
    """Count the chosen consumers in the database; the filter is not applied."""
    consumers: int = connection.execute(COUNT, msgspec.structs.asdict(scope)).scalar_one()
    return consumers


def count_matches(client: OpenSearch, alias: str, query: Clause) -> int:
    """Count the documents matching a query.

    Args:
        client: of commands, or of the indexer.
        alias: the read alias.
        query: from `index_query`.

    Raises:
        OpenSearchException: OpenSearch does not respond.
    """
    response: Any = client.count(index=alias, body={"query": query})
    if isinstance(response, bytes):
        response = msgspec.json.decode(response)
    return int(response["count"])


def _utc_milliseconds(moment: datetime | None) -> datetime | None:
    """Convert to UTC and cut to milliseconds, as in rows and documents. A time without a zone is in UTC."""
    if moment is None:
        return None
    utc = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)
