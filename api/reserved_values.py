"""Unique values are locked before a write looks for taken values.

An insert skips a row with a taken value (`ON CONFLICT DO NOTHING`). A change of a stored row cannot: of two concurrent
changes to the same value, the second would end in a unique violation, and PostgreSQL writes the value to its log. With
the locks, the second write waits for the first, and then finds the value taken. Locks end with the transaction.
"""

from collections.abc import Iterable

MAX_VALUES = 64
"""A write with more values locks none: all transactions together may hold some 6,400 locks."""
RESERVED = """
    (SELECT count(pg_advisory_xact_lock(hashtextextended(value, :environment_id)))
     FROM unnest(CAST(:reserved AS text[])) AS value) >= 0"""
"""An SQL condition that locks the values `:reserved`, and is true. PostgreSQL evaluates it once, before any row."""


def reserved(values: Iterable[object]) -> list[str]:
    """Return the values for `RESERVED`: the texts, without regard to case, because e-mail addresses are compared so.

    The order is the same in each write: otherwise two writes could deadlock.
    """
    texts = sorted({value.lower() for value in values if isinstance(value, str)})
    return texts if len(texts) <= MAX_VALUES else []
