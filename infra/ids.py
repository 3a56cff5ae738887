"""Ids of resources: a prefix and a ULID."""

import re

from ulid import ULID

ULID_TEXT = re.compile(r"[0-9A-Z]{26}")


def new_ids(prefix: str, count: int) -> list[str]:
    """Make ids that ascend in the order of the list: consecutive ULIDs from a single time and random number."""
    first = int(ULID())
    return [f"{prefix}{ULID.from_int(first + number)}" for number in range(count)]


def is_id(prefix: str, text: str) -> bool:
    """Return whether a text has the form of an id.

    A path may hold texts that PostgreSQL does not even accept as a parameter, such as NUL, so check before a query.
    """
    return text.startswith(prefix) and ULID_TEXT.fullmatch(text, len(prefix)) is not None
