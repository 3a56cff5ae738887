"""A nightly sync of 20,000 customers by upsert: 40 requests. The same sync again changes nothing."""

from typing import Any

import pytest
import sqlalchemy as sa

from tests.api.resources import count_rows
from tests.service import Account

pytestmark = pytest.mark.cluster

CUSTOMERS, BATCH = 20_000, 500
VERSIONS = sa.text("""
    SELECT count(*), md5(string_agg(c::text, ' ' ORDER BY c.id)) FROM consumers c WHERE c.environment_id = :id""")


def customer(number: int) -> dict[str, Any]:
    return {
        "externalId": f"crm-{number}",
        "email": f"Person.{number}@example.com",
        "phone": f"+4420{number:08}",
        "fullName": f"Person {number}",
        "metadata": {"tier": "gold", "number": number, "share": number / 7, "visits": 1.0, "left": None},
    }


def sync(account: Account, changed: int = 0) -> dict[str, int]:
    """Send every customer, the first `changed` with another name; return the outcomes and their number."""
    customers = [customer(number) for number in range(CUSTOMERS)]
    for each in customers[:changed]:
        each["fullName"] += " Jr"
    totals = dict.fromkeys(("created", "updated", "unchanged", "failed", "requests"), 0)
    for first in range(0, CUSTOMERS, BATCH):
        headers = {"Prefer": "return=minimal"}
        body = customers[first : first + BATCH]
        response = account.live.post("/consumers/batch/upsert", json=body, headers=headers)
        response.raise_for_status()
        totals["requests"] += 1
        for name in totals.keys() & response.json().keys():
            totals[name] += response.json()[name]
    return {name: number for name, number in totals.items() if number}


def stored(account: Account) -> tuple[int, str]:
    with account.database.engine.connect() as connection:
        number, digest = connection.execute(VERSIONS, {"id": account.live_environment}).one()
    return number, digest


def test_nightly_sync(account: Account) -> None:
    assert sync(account) == {"created": CUSTOMERS, "requests": CUSTOMERS // BATCH}
    account.settled()
    before = stored(account)
    assert before[0] == CUSTOMERS
    assert sync(account) == {"unchanged": CUSTOMERS, "requests": CUSTOMERS // BATCH}
    assert count_rows(account, "outbox") == 0
    assert stored(account) == before
    assert sync(account, changed=7) == {"updated": 7, "unchanged": CUSTOMERS - 7, "requests": CUSTOMERS // BATCH}
