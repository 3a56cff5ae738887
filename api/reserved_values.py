"""Concurrent writes of the same unique value: none of them is an error of the database.

PostgreSQL writes an error to its log, with the value that is taken. An insert skips a row with a taken value
(`ON CONFLICT DO NOTHING`). A change of a stored row cannot, so the function `unless_taken` of the database runs the
change, catches the error, and returns no rows.

A write with few values also locks them, in the same order as each other write. So two such writes never deadlock, and
the second finds the value taken. Locks end with the transaction.
"""

from collections.abc import Iterable

import sqlalchemy as sa

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


ARGUMENTS = {
    "environment_id": ":environment_id",
    "rows": "CAST(:rows AS json)",
    "ids": "CAST(:ids AS text[])",
    "with_metadata": "CAST(:with_metadata AS text[])",
}
"""The arguments of `unless_taken` for the parameters of an UPDATE, in order."""


def unless_taken(update: sa.TextClause, columns: str) -> sa.TextClause:
    """Return a statement that runs an UPDATE, and returns no rows if a unique value of the new rows is taken.

    Args:
        update: `UPDATE table alias …`, with some of the parameters in `ARGUMENTS`, and whole rows in RETURNING.
        columns: to return.
    """
    text = update.text
    _, table, alias, *_ = text.split()
    arguments = [argument for name, argument in ARGUMENTS.items() if f":{name}" in text]
    for number, name in enumerate(ARGUMENTS, start=1):
        text = text.replace(f":{name}", f"${number}")
    return sa.text(f"""
        SELECT {columns} FROM unless_taken(NULL::{table}, $update${text}$update$, {", ".join(arguments)}) AS {alias}""")
