"""Ids of resources: a prefix and a ULID."""

import re

from ulid import ULID

ULID_TEXT = re.compile(r"[0-9A-Z]{26}")


def new_ids(prefix: str, count: int) -> list[str]:
    """Make ids in ascending order: consecutive ULIDs from a single time and random number."""
    first = int(ULID())
    return [f"{prefix}{ULID.from_int(first + number)}" for number in range(count)]


def is_id(prefix: str, text: str) -> bool:
    """Return whether a text has the form of an id.

    Check before a query: a path may hold texts not even accepted by PostgreSQL as a parameter, such as NUL.
    """
    return text.startswith(prefix) and ULID_TEXT.fullmatch(text, len(prefix)) is not None
