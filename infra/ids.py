"""Ids: a prefix and a ULID."""

from ulid import ULID


def new_ids(prefix: str, count: int) -> list[str]:
    """Ids that ascend in the order of the list: one moment, one random number, counted up."""
    first = int(ULID())
    return [f"{prefix}{ULID.from_int(first + number)}" for number in range(count)]
