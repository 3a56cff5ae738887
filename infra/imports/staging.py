"""Shared by the imports of consumers and of orders: e-mail keys of the staging table, waves, outcomes."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
from psycopg import Connection, sql

from infra import fields

Db = Connection[tuple[Any, ...]]


class ValueTaken(Exception):  # noqa: N818 (a state of the stored rows: the chunk is repeated)
    """An insert skipped a row, because a concurrent transaction took a unique value of the row."""


class Outcome(msgspec.Struct):
    """Counts of stored rows, and reasons of rejected rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejects: dict[int, str] = msgspec.field(default_factory=dict)
    """Position in the chunk → reason."""
    deferred: dict[int, str] = msgspec.field(default_factory=dict)
    """Position in the chunk → reason to reject the row, unless a later row frees the taken address."""
    waiting: set[Hashable] = msgspec.field(default_factory=set)
    """Keys of the deferred rows."""

    def add(self, other: "Outcome") -> None:
        self.inserted += other.inserted
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.rejects |= other.rejects
        self.deferred |= other.deferred


def email_key(connection: Db) -> sql.SQL:
    """Return the expression that generates `consumers.email_key`, so that lower-casing is defined in one place."""
    row = connection.execute(
        """
        SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
        JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE d.adrelid = 'consumers'::regclass AND a.attname = 'email_key'
        """
    ).fetchone()
    assert row
    return sql.SQL(row[0])


ENVIRONMENT = "(SELECT %(environment)s::int)"
"""The environment, for look-ups in an index of environment and key.

PostgreSQL plans a subquery for an environment of average size. A new environment is not in the statistics: with its
number, PostgreSQL expects a single row in it, and reads the whole environment for each look-up.
"""
# Merged metadata that may exceed a limit: its text in the database is never shorter than the text the rule measures.
SUSPECT_METADATA = f"""
    octet_length(metadata::text) > {fields.METADATA_BYTES}
    OR (SELECT count(*) FROM jsonb_object_keys(metadata)) > {fields.METADATA_KEYS}
"""


def metadata_faults(merged: dict[str, Any] | None) -> list[str]:
    """Return the faults of merged metadata."""
    if merged is None:
        return []
    try:
        fields.metadata(merged)
    except ValueError as error:
        return [f"metadata: {error}, when merged with the stored metadata"]
    return []


def waves(keys: Mapping[int, Sequence[Hashable]]) -> list[list[int]]:
    """Split rows into waves, so that storing wave after wave equals storing row after row.

    Rows that share a key, directly or through a third row, are in different waves, in their order.

    Args:
        keys: row → keys of the records it may touch; at least one key a row.
    """
    all_keys = list(chain.from_iterable(keys.values()))
    if len(set(all_keys)) == len(all_keys):
        return [list(keys)] if keys else []
    parent: dict[Hashable, Hashable] = {}

    def group(key: Hashable) -> Hashable:
        while (above := parent.setdefault(key, key)) != key:
            parent[key] = key = parent[above]
        return key

    for row_keys in keys.values():
        first = group(row_keys[0])
        for key in row_keys[1:]:
            parent[group(key)] = first
    result: list[list[int]] = []
    earlier: Counter[Hashable] = Counter()
    for row, row_keys in keys.items():
        of = group(row_keys[0])
        if earlier[of] == len(result):
            result.append([])
        result[earlier[of]].append(row)
        earlier[of] += 1
    return result
