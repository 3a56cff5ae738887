"""Store one chunk of rows in one transaction.

A chunk is repeated after a collision with another transaction. A chunk refused by the database is halved until the
refused row is alone.
"""

from collections.abc import Callable, Hashable
from functools import partial

import psycopg
from psycopg import errors, sql

from infra.imports.exported import Environment
from infra.imports.kinds import Kind
from infra.imports.rules import Row
from infra.imports.sources import ImportFailed
from infra.imports.staging import Db, Outcome, ValueTaken

ATTEMPTS = 5
# A concurrent API request took the same e-mail address or the same locks; the next attempt sees its result.
COLLISIONS = (ValueTaken, errors.UniqueViolation, errors.DeadlockDetected, errors.SerializationFailure)
TAKEN = f"externalId or email: taken by a concurrent request in each of {ATTEMPTS} attempts; import the row again"
CONSTRAINTS = {
    "total_order_value_in_range": "amount: would take the consumer's totalOrderValue past 90,000,000,000,000",
    "order_value_in_range": "amount: an order's value must be at most 90,000,000,000,000",
    "consumers_email_unique": "email: Email already exists",
    "consumers_external_id_unique": "externalId: External ID already exists",
    "orders_external_id_unique": "externalId: External ID already exists",
}
# Tables may grow a thousandfold during an import, statistics follow late, and triggers keep their plans: index scans
# are always right. LIMIT 1 and lists of ids keep the planner from reading a whole environment in the other statements.
# Compiling a statement (jit) takes longer than running it on one chunk. The check of a foreign key keeps its plan: with
# the setting of the session, PostgreSQL would plan the check again for each row.
SETTINGS = """
SELECT set_config('consumers.lane', 'bulk', true), set_config('enable_seqscan', 'off', true),
    set_config('jit', 'off', true), set_config('plan_cache_mode', 'auto', true)
"""

Store = Callable[[Db, Environment], Outcome]
# Deferred rows are kept in memory, and stored in one transaction.
MAX_DEFERRED = 20_000

# The clean-up of a deleted organization must not meet new rows for ever.
EXISTS = """
SELECT FROM environments e JOIN organizations o ON o.id = e.organization_id
WHERE e.id = %s AND o.deleted_at IS NULL
"""


class Chunks:
    """Store chunks on a connection in autocommit mode."""

    def __init__(self, connection: Db, kind: Kind, environment: Environment, *, dry_run: bool) -> None:
        self._connection = connection
        self._kind = kind
        self._environment = environment
        self._dry_run = dry_run
        columns = sql.SQL(", ").join(map(sql.Identifier, ("row", *kind.rules.staged, "metadata")))
        self._copy = sql.SQL("COPY staging ({}) FROM STDIN").format(columns)
        self._waiting: set[Hashable] = set()
        self._deferred = 0
        kind.prepare(connection)

    def store(self, rows: list[Row]) -> Outcome:
        """Store the rows; return the counts, the reason for each row that the database refuses, and deferred rows.

        Raises:
            ImportFailed: the organization has been deleted.
            psycopg.Error: the server is unavailable, or the locks were not free in any attempt.
        """
        return self._halved(rows, partial(self._kind.store, waiting=self._waiting))

    def settle(self, rows: list[Row]) -> Outcome:
        """Store the deferred rows of all chunks in one transaction. Raises as `store` does."""
        return self._halved(rows, self._kind.settle)

    def _halved(self, rows: list[Row], store: Store) -> Outcome:
        if not rows:
            return Outcome()
        try:
            outcome = self._attempts(rows, store)
        except (ValueTaken, psycopg.IntegrityError, psycopg.DataError) as error:
            if len(rows) == 1:
                (position, *_) = rows[0]
                assert isinstance(position, int)
                return Outcome(rejects={position: _reason(error)})
        else:
            return self._kept(outcome)
        middle = len(rows) // 2
        outcome = self._halved(rows[:middle], store)
        outcome.add(self._halved(rows[middle:], store))
        return outcome

    def _kept(self, outcome: Outcome) -> Outcome:
        """Keep the keys of the deferred rows, or reject these rows because they are too many."""
        if self._deferred + len(outcome.deferred) > MAX_DEFERRED:
            outcome.rejects |= outcome.deferred
            outcome.deferred = {}
        elif outcome.deferred:
            self._deferred += len(outcome.deferred)
            self._waiting |= outcome.waiting
        return outcome

    def _attempts(self, rows: list[Row], store: Store) -> Outcome:
        for _ in range(ATTEMPTS - 1):
            try:
                return self._transaction(rows, store)
            except COLLISIONS:
                continue
        return self._transaction(rows, store)

    def _transaction(self, rows: list[Row], store: Store) -> Outcome:
        with self._connection.transaction(force_rollback=self._dry_run):
            self._connection.execute(SETTINGS)
            if not self._connection.execute(EXISTS, [self._environment.id]).rowcount:
                raise ImportFailed("The organization was deleted during the import")
            with self._connection.cursor() as cursor, cursor.copy(self._copy) as copy:
                for row in rows:
                    copy.write_row(row)
            return store(self._connection, self._environment)


def _reason(error: ValueTaken | psycopg.Error) -> str:
    if isinstance(error, ValueTaken):
        return TAKEN
    return CONSTRAINTS.get(error.diag.constraint_name or "", error.diag.message_primary or "refused by the database")
