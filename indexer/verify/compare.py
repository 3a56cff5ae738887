"""Verify: whether the index is the database, by id, version and every byte, while both go on changing.

Both are read by ranges of ids: some thousand consumers, and the documents whose ids lie between theirs. What differs
is a suspect, for the two were not read at one moment; `indexer/verify/suspects.py` tells what is really wrong.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import msgspec
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.bulk import FIELDS
from indexer.drain.claims import STORED_CONSUMER_COLUMNS, StoredConsumer
from indexer.verify import suspects
from indexer.verify.suspects import Difference, Found, Index
from infra.ids import is_id
from infra.index.mapping import DOCUMENT_VERSION

ROWS = 2_000
"""Consumers of a range."""
SEARCHED = 3_000
"""Documents of one answer: more than a range has consumers, for there are tombstones between them."""
THREADS = 2
"""While one waits for the database or the index, the other makes documents, which is most of the work."""
AHEAD = 4
"""Ranges that are under way or waiting to be told of. Each may hold a few megabytes."""
MOST = 10_000
"""Differences that a report names."""

GENERATION = sa.text("SELECT fields, document_version FROM generations WHERE index_name = :name")
_SCOPE = "AND c.environment_id = :environment_id"
_LAST = """
    SELECT c.id FROM consumers c WHERE c.id > :after {scope} ORDER BY c.id OFFSET :rows - 1 LIMIT 1"""
LAST, LAST_OF_ENVIRONMENT = (sa.text(_LAST.format(scope=scope)) for scope in ("", _SCOPE))
_ROWS = f"""
    SELECT {STORED_CONSUMER_COLUMNS} FROM consumers c
    WHERE c.id > :after AND (CAST(:last AS text) IS NULL OR c.id <= :last) {{scope}}"""
ALL, ALL_OF_ENVIRONMENT = (sa.text(_ROWS.format(scope=scope)) for scope in ("", _SCOPE))


class Range(NamedTuple):
    """Ids after one, up to another; without a last one, all that follow."""

    after: str
    last: str | None


class Scope(NamedTuple):
    """What is compared."""

    searched: Index
    environment_id: int | None
    """This one's alone; None: everything."""


class Step(NamedTuple):
    """What came of a range, or of its beginning."""

    last: str | None
    """Up to here it was compared; None: to the end."""
    compared: int
    """Consumers."""
    in_flight: int
    differences: list[tuple[Difference, Found | None]]


Submit: TypeAlias = Callable[[Range], "Future[Step]"]


class Report(msgspec.Struct, kw_only=True):
    """What a comparison found."""

    compared: int = 0
    """Consumers."""
    in_flight: int = 0
    """Documents that were not as their rows while a change of theirs was on its way, which writes them anew."""
    causes: dict[str, int] = {}
    found: list[Difference] = []
    """The first of them."""

    @property
    def differences(self) -> int:
        return sum(self.causes.values())

    def add(self, step: Step) -> None:
        self.compared += step.compared
        self.in_flight += step.in_flight
        self.causes = dict(Counter(self.causes) + Counter(difference.cause for difference, _ in step.differences))
        self.found += [difference for difference, _ in step.differences[: MOST - len(self.found)]]


def verify_generation(
    engine: sa.Engine,
    client: OpenSearch,
    index: str,
    *,
    environment_id: int | None = None,
    told: Callable[[Report], object] = lambda _: None,
) -> Report:
    """Compare an index with the database, in this process. It holds up neither, and its memory does not grow.

    Args:
        engine: with room for three connections.
        client: whose answers are JSON text.
        index: its name; refreshed since the last change whose record went.
        environment_id: compare this one's consumers and documents alone.
        told: called after each range with what was found so far.

    Raises:
        OpenSearchException, DBAPIError: one of the two is away.
    """
    report, scope = Report(), Scope(index_of(engine, index), environment_id)
    with ThreadPoolExecutor(THREADS) as pool:
        for step in steps(ranges(engine, scope), lambda part: pool.submit(compare, engine, client, scope, part)):
            report.add(step)
            told(report)
    return report


def index_of(engine: sa.Engine, name: str) -> Index:
    """An index as its generation was declared."""
    with engine.connect() as connection:
        row = connection.execute(GENERATION, {"name": name}).one_or_none()
    return Index(name, frozenset(row.fields), row.document_version == DOCUMENT_VERSION) if row else Index(name, FIELDS)


def ranges(engine: sa.Engine, scope: Scope, after: str = "", rows: int = ROWS) -> Iterator[Range]:
    """All ids after one, in ranges of so many consumers."""
    last: str | None = after
    while last is not None:
        values = {"after": after, "rows": rows}
        with engine.connect() as connection:
            last = _scoped(connection, scope, LAST, LAST_OF_ENVIRONMENT, values).scalar_one_or_none()
        yield Range(after, last)
        after = last or ""


def steps(parts: Iterable[Range], submit: Submit) -> Iterator[Step]:
    """Have ranges compared, some at a time, and tell of them in their order."""
    waiting: deque[tuple[Range, Future[Step]]] = deque()
    for part in parts:
        waiting.append((part, submit(part)))
        if len(waiting) >= AHEAD:
            yield from _whole(*waiting.popleft(), submit)
    while waiting:
        yield from _whole(*waiting.popleft(), submit)


def _whole(part: Range, future: "Future[Step]", submit: Submit) -> Iterator[Step]:
    """A range, in several steps if the index has much more in it than the database."""
    yield (step := future.result())
    while step.last != part.last:
        assert step.last is not None
        yield (step := submit(Range(step.last, part.last)).result())


def compare(engine: sa.Engine, client: OpenSearch, scope: Scope, part: Range) -> Step:
    """Compare a range, or as much of its beginning as can be held at a time.

    Raises:
        OpenSearchException, DBAPIError: one of the two is away.
    """
    documents, part = _documents(client, scope, part)
    with engine.connect() as connection:
        # Past SQLAlchemy's rows, which take as long as the rest of reading.
        rows = _scoped(connection, scope, ALL, ALL_OF_ENVIRONMENT, part._asdict()).cursor.fetchall()
    wanted = {}
    for row in rows:
        current = StoredConsumer.from_row(row)
        wanted[current.row.id] = (current.row.version, suspects.expected(current, scope.searched))
    checked = suspects.check(engine, client, scope.searched, _differing(wanted, documents, scope.searched))
    mine = [pair for pair in checked.differences if not _is_of_another(scope, part, pair[0])]
    return Step(part.last, len(rows), checked.in_flight, mine)


def _scoped(
    connection: sa.Connection, scope: Scope, every: sa.TextClause, one: sa.TextClause, values: dict[str, Any]
) -> sa.CursorResult[Any]:
    if scope.environment_id is None:
        return connection.execute(every, values)
    return connection.execute(one, values | {"environment_id": scope.environment_id})


def _documents(client: OpenSearch, scope: Scope, part: Range) -> tuple[list[Found], Range]:
    """The documents of a range of ids, and the range they are all of; those without an id are at the end of all.

    A range of ids is found by the index of terms, at the same cost wherever it lies. Reading on in the order of ids, as
    a scroll by id does, goes through all documents for each answer.
    """
    ids = {name: value for name, value in (("gt", part.after), ("lte", part.last)) if value}
    clauses: dict[str, Any] = {"filter": [{"range": {"id": ids}}]}
    # To have them in the order of ids takes longer, and is needed only where there are too many.
    found = _search(client, scope, clauses, "_doc")
    if len(found) == SEARCHED:
        found = _search(client, scope, clauses, "id")
        part = Range(part.after, found[-1].sort[0])
        found += _search(client, scope, {"filter": [{"term": {"id": part.last}}]}, "_doc")
    if part.last is None:
        found += _search(client, scope, {"filter": [], "must_not": {"exists": {"field": "id"}}}, "_doc")
    return found, part


def _search(client: OpenSearch, scope: Scope, clauses: dict[str, Any], order: str) -> list[Found]:
    if scope.environment_id is not None:
        mine = {"term": {"environmentId": str(scope.environment_id)}}
        clauses = clauses | {"filter": [*clauses["filter"], mine]}
    return suspects.search(client, scope.searched.name, {"query": {"bool": clauses}, "sort": [order], "size": SEARCHED})


def _differing(wanted: dict[str, tuple[int, bytes | None]], documents: list[Found], index: Index) -> list[str]:
    """Ids of the documents that are not as wanted, and of those that are not there; each once."""
    doubtful, seen = [], set()
    for found in documents:
        if found.id in seen:
            continue
        seen.add(found.id)
        if row := wanted.pop(found.id, None):
            right = row == (found.version, found.bytes) or (not index.is_of_this_code and row[0] == found.version)
        else:
            right = found.is_tombstone and is_id(suspects.PREFIX, found.id)
        if not right:
            doubtful.append(found.id)
    return [*doubtful, *wanted]


def _is_of_another(scope: Scope, part: Range, difference: Difference) -> bool:
    """Whether another range finds it too: where a document names another id than its own, the range of its row."""
    here = part.after < difference.id and (part.last is None or difference.id <= part.last)
    mine = scope.environment_id in {None, difference.environment_id}
    return not here and difference.database_version is not None and mine
