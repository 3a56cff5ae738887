"""Ids: a prefix and a ULID."""

import re

from ulid import ULID

ULID_TEXT = re.compile(r"[0-9A-Z]{26}")


def new_ids(prefix: str, count: int) -> list[str]:
    """Ids that ascend in the order of the list: one moment, one random number, counted up."""
    first = int(ULID())
    return [f"{prefix}{ULID.from_int(first + number)}" for number in range(count)]


def is_id(prefix: str, given: str) -> bool:
    """Whether it can be an id at all: PostgreSQL would not even take all that a request's path may hold."""
    return given.startswith(prefix) and ULID_TEXT.fullmatch(given, len(prefix)) is not None
