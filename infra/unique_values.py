"""Unique values of a batch: the state after the batch counts, so values can be freed, moved and swapped within it.

The index of the database compares row by row, in an order that a statement does not decide. A row whose value another
row of the batch takes over therefore gives up its value first (`Verdict.released`), in a statement of its own.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """The value of an item before and after the batch. A value is compared by its key."""

    id: str | None = None
    """The id of the stored row; None for a new row."""
    before: str | None = None
    after: str | None = None


class Verdict(NamedTuple):
    """The result for each item with a fault, by its index in the batch, and the rows that give up their value."""

    taken: Mapping[int, str]
    """The id of the row that has the value and keeps it."""
    repeated: Mapping[int, int]
    """The index of the first item that takes the same value."""
    released: Sequence[str]
    """The ids of the rows that must give up their value before it is taken."""


def judge(claims: Sequence[Claim], owners: Mapping[str, str]) -> Verdict:
    """Decide which items of a batch can have their values.

    Args:
        claims: for each item. No two items have the same id.
        owners: for values that items take, the id of the row that has the value before the batch.
    """
    after = {claim.id: claim.after for claim in claims if claim.id is not None}
    taken: dict[int, str] = {}
    repeated: dict[int, int] = {}
    released: dict[str, None] = {}
    first: dict[str, int] = {}
    for index, (own_id, before, value) in enumerate(claims):
        if value is None or (own_id is not None and value == before):
            continue
        owner = owners.get(value)
        if owner is not None and owner != own_id:
            if owner not in after or after[owner] == value:
                taken[index] = owner
                continue
            released[owner] = None
        if first.setdefault(value, index) != index:
            repeated[index] = first[value]
    return Verdict(taken, repeated, sorted(released))
