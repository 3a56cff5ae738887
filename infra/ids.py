"""Ids of resources: a prefix and a ULID."""

import re

from ulid import ULID

ULID_TEXT = re.compile(r"[0-9A-Z]{26}")
CONSUMER, TIME_LENGTH = "cons_", 10
BASE32 = str.maketrans("ABCDEFGHJKMNPQRSTVWXYZ", "ABCDEFGHIJKLMNOPQRSTUV".lower())
"""From the digits of a ULID, which has no I, L, O and U, to the digits of `int`."""


def new_ids(prefix: str, count: int) -> list[str]:
    """Make ids in ascending order: consecutive ULIDs from a single time and random number."""
    first = int(ULID())
    return [f"{prefix}{ULID.from_int(first + number)}" for number in range(count)]


def is_id(prefix: str, text: str) -> bool:
    """Return whether a text has the form of an id.

    Check before a query: a path may hold texts not even accepted by PostgreSQL as a parameter, such as NUL.
    """
    return text.startswith(prefix) and ULID_TEXT.fullmatch(text, len(prefix)) is not None


def id_time(consumer_id: str) -> int:
    """Return the time in the id of a consumer, in milliseconds since 1970: ids are sorted by it first.

    >>> id_time("cons_01JBK3Q8X5W5V0B6T1R2M3N4P5")
    1730450826149
    """
    return int(consumer_id[len(CONSUMER) : len(CONSUMER) + TIME_LENGTH].translate(BASE32), 32)
