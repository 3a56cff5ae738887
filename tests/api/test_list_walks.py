"""Paging through 50,000 rows with thousands of equal sort values."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.api.pages import walk, walk_backward
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

ROWS = 50_000
FILL = sa.text("""
    INSERT INTO consumers (environment_id, full_name, created_at)
    SELECT :environment, CASE WHEN n % 5 > 0 THEN 'Somebody' END,
        '2024-01-01Z'::timestamptz + (n * 7919 % 7) * interval '1 ms'
    FROM generate_series(1, :rows) AS n""")


@pytest.fixture(scope="module")
def multitude(service: Service) -> Iterator[Account]:
    with new_account(service) as account:
        with account.database.engine.begin() as connection:
            connection.execute(FILL, {"environment": account.live_environment, "rows": ROWS})
        wait_until(lambda: not account.database.waiting(account.live_environment), timeout=180, what="the index")
        yield account


def test_paging_50000_rows_both_ways_returns_each_once(multitude: Account) -> None:
    query = sa.text("SELECT id FROM consumers WHERE environment_id = :environment ORDER BY created_at DESC, id DESC")
    with multitude.database.engine.connect() as connection:
        expected = list(connection.execute(query, {"environment": multitude.live_environment}).scalars())
    assert len(expected) == ROWS
    assert walk(multitude.live) == expected
    assert walk_backward(multitude.live) == expected
