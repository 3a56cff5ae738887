"""Ids of resources: a prefix and a ULID."""

import re

from ulid import ULID

ULID_TEXT = re.compile(r"[0-9A-Z]{26}")
CONSUMER, TIME_LENGTH = "cons_", 10
BASE32 = str.maketrans("ABCDEFGHJKMNPQRSTVWXYZ", "ABCDEFGHIJKLMNOPQRSTUV".lower())
"""From the digits of a ULID, which has no I, L, O and U, to the digits of `int`."""
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LAST_DIGITS = [first + second for first in DIGITS for second in DIGITS]
"""The last two digits of consecutive ULIDs: 1,024 ids need a single conversion."""


def new_ids(prefix: str, count: int) -> list[str]:
    """Make ids in ascending order: consecutive ULIDs from a single time and random number."""
    ids: list[str] = []
    number = int(ULID())
    while len(ids) < count:
        start, end = f"{prefix}{ULID.from_int(number)}"[: -len(LAST_DIGITS[0])], number % len(LAST_DIGITS)
        ids += [start + last for last in LAST_DIGITS[end : end + count - len(ids)]]
        number += len(LAST_DIGITS) - end
    return ids


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
