"""Names of every script are sorted by Unicode's root collation."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from tests.api.pages import walk, walk_backward
from tests.service import Account, Service, new_account

NAMES = (Path(__file__).parent / "names_in_order.txt").read_text(encoding="utf-8").splitlines()
"""Names of many scripts and cases, sorted by ICU's root collation at tertiary strength."""
INSERT = sa.text("""
    INSERT INTO consumers (id, environment_id, full_name)
    SELECT 'cons_00' || lpad(:environment || 'X' || place, 24, '0'), :environment, name
    FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS n (name, place)""")
EQUAL = ["Émile Zola", "emile zola", "Zoë", "田中", "Анна", "أحمد", None]


@pytest.fixture(scope="module")
def named(service: Service) -> Iterator[Account]:
    """Live environment: each name once. Test environment: few names, each many times."""
    with new_account(service) as account:
        shuffled = Random("names").sample(NAMES, len(NAMES))
        crowd = Random("crowd").choices(EQUAL, k=500)
        with account.database.engine.begin() as connection:
            for environment, names in ((account.live_environment, shuffled), (account.test_environment, crowd)):
                connection.execute(INSERT, {"environment": environment, "names": names})
        account.settled()
        yield account


def names(account: Account) -> dict[str, str | None]:
    query = sa.text("SELECT id, full_name FROM consumers WHERE environment_id IN (:live, :test)")
    with account.database.engine.connect() as connection:
        environments = {"live": account.live_environment, "test": account.test_environment}
        return {row.id: row.full_name for row in connection.execute(query, environments)}


@pytest.mark.parametrize("size", [100, 7])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_names_are_sorted_by_the_root_collation(named: Account, direction: str, size: int) -> None:
    expected = NAMES if direction == "asc" else NAMES[::-1]
    order = {"sortBy": "fullName", "sortDir": direction}
    assert len(NAMES) >= 300
    name = names(named)
    assert [name[one] for one in walk(named.live, first=size, **order)] == expected
    assert [name[one] for one in walk_backward(named.live, last=size, **order)] == expected


@pytest.mark.parametrize("size", [100, 7])
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_equal_names_are_ordered_by_id_and_nulls_are_last(named: Account, direction: str, size: int) -> None:
    name = names(named)
    order = {"sortBy": "fullName", "sortDir": direction}
    ids = walk(named.test, first=size, **order)
    rank = {one: index for index, one in enumerate(["emile zola", "Émile Zola", "Zoë", "Анна", "أحمد", "田中"])}
    descending = direction == "desc"
    people = sorted((one for one in ids if name[one]), key=lambda one: (rank[name[one] or ""], one), reverse=descending)
    nameless = sorted((one for one in ids if not name[one]), reverse=descending)
    assert len(set(ids)) == 500
    assert ids == people + nameless
    assert walk_backward(named.test, last=size, **order) == ids
