"""Ids are consecutive ULIDs."""

import pytest
from ulid import ULID

from infra.ids import is_id, new_ids


@pytest.mark.parametrize("count", [0, 1, 3, 1023, 1024, 1025, 5000])
def test_ids_are_consecutive_ulids(count: int) -> None:
    ids = new_ids("ord_", count)
    first = int(ULID.from_str(ids[0].removeprefix("ord_"))) if ids else 0
    assert ids == [f"ord_{ULID.from_int(first + number)}" for number in range(count)]
    assert all(is_id("ord_", text) for text in ids)
