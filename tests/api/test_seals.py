"""Ids, tokens, entity tags and cursors tell a merchant nothing about other merchants (contract.md §1 "Safe writes")."""

import math
import os
import random
import re
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import correlation
from typing import NamedTuple

import httpx
import pytest
import sqlalchemy as sa
from ulid import ULID

from tests.api.freshness import TOKEN, read, run_sql
from tests.api.pages import get_page
from tests.api.resources import create, faults, stored_version
from tests.service import Account, Database, Service, new_account

STEPS = 500
"""In each step, each of two merchants receives five values: 5,000 values in all."""
MOST_WRITES = 3
MARGIN = 7
"""Standard deviations: the correlation of independent values exceeds this in one of 10¹¹ comparisons."""

Series = dict[str, list[bytes]]


class Merchant(NamedTuple):
    """A merchant, the values received in each step, and how much the other merchant wrote before each step."""

    account: Account
    received: Series
    foreign_writes: list[int]

    def step(self) -> None:
        """Create a consumer and read a page, and keep all opaque values of both responses."""
        response = self.account.live.post("/consumers", json={"fullName": "Ann"}).raise_for_status()
        info = get_page(self.account.live, "/audiences", first=2)["pageInfo"]
        values = {
            "id": ULID.from_str(response.json()["id"].removeprefix("cons_")).bytes,
            "token": decoded(response.headers[TOKEN]),
            "etag": decoded(response.headers["ETag"].strip('"')),
            "start cursor": decoded(info["startCursor"]),
            "end cursor": decoded(info["endCursor"]),
        }
        for kind, value in values.items():
            self.received[kind].append(value)

    def write(self, number: int) -> None:
        """Create consumers in SQL, each in a transaction of its own. This moves the same counters as requests do."""
        insert = sa.text("INSERT INTO consumers (environment_id) VALUES (:id)")
        with self.account.database.engine.connect() as connection:
            for _ in range(number):
                connection.execute(insert, {"id": self.account.live_environment})
                connection.commit()


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def windows(values: Sequence[bytes]) -> Iterator[list[int]]:
    """Read the values as numbers in every way: two, four or eight bytes, from any position, in either order."""
    length = min(map(len, values))
    for width in (2, 4, 8):
        for start in range(length - width + 1):
            for order in ("big", "little"):
                yield [int.from_bytes(value[start : start + width], order) for value in values]


def moves_with(values: Sequence[bytes], foreign_writes: Sequence[int]) -> bool:
    """Return whether differences between successive values follow the number of foreign writes in between."""
    for numbers in windows(values):
        steps = [after - before for before, after in pairwise(numbers)]
        if len(set(steps)) > 1 and abs(correlation(steps, foreign_writes[1:])) > MARGIN / math.sqrt(len(steps)):
            return True
    return False


def without_time(kind: str, values: Sequence[bytes]) -> Sequence[bytes]:
    """Remove the time of creation, the first six bytes of an id: the client knows when it wrote."""
    return [value[6:] for value in values] if kind == "id" else values


@pytest.fixture(scope="module")
def merchants(service: Service) -> Iterator[list[Merchant]]:
    """Two merchants that write in turns, each a random number of times between two steps of the other."""
    numbers = random.Random(17)
    with new_account(service) as one, new_account(service) as other:
        both = [Merchant(account, defaultdict(list), []) for account in (one, other)]
        for merchant in both:
            for name in ("A", "B"):
                create(merchant.account.live, "/audiences", name=name, type="STATIC")
        for _ in range(STEPS):
            for merchant, neighbour in (both, both[::-1]):
                merchant.foreign_writes.append(numbers.randint(0, MOST_WRITES))
                neighbour.write(merchant.foreign_writes[-1])
                merchant.step()
        yield both


@pytest.mark.parametrize("kind", ["id", "token", "etag", "start cursor", "end cursor"])
def test_nothing_moves_with_the_writes_of_another_merchant(merchants: list[Merchant], kind: str) -> None:
    for merchant in merchants:
        values = merchant.received[kind]
        assert len(values) == STEPS
        assert not moves_with(without_time(kind, values), merchant.foreign_writes)
    assert sum(len(values) for merchant in merchants for values in merchant.received.values()) == 5_000


def test_stored_versions_and_transactions_would_show_the_writes(merchants: list[Merchant]) -> None:
    """The comparison above finds the counters if they are in clear."""
    for merchant in merchants:
        with merchant.account.database.engine.connect() as connection:
            query = sa.text("""
                SELECT version, CAST(CAST(xmin AS text) AS bigint) AS xid FROM consumers
                WHERE environment_id = :id AND full_name = 'Ann' ORDER BY id""")
            rows = connection.execute(query, {"id": merchant.account.live_environment}).all()
        for counter in zip(*rows, strict=True):
            assert moves_with([number.to_bytes(8) for number in counter], merchant.foreign_writes)


def test_no_value_is_repeated_or_received_by_both_merchants(merchants: list[Merchant]) -> None:
    for kind in ("id", "token", "etag"):
        assert len({value for merchant in merchants for value in merchant.received[kind]}) == 2 * STEPS


def test_cursor_hides_the_email_address_and_the_environment(account: Account) -> None:
    create(account.live, email="hidden@example.com")
    account.settled()
    cursor = get_page(account.live, sortBy="email", first=1)["pageInfo"]["endCursor"]
    assert b"hidden" not in decoded(cursor)
    run_sql(account, "UPDATE consumers SET full_name = 'Ann' WHERE environment_id = :e")
    account.settled()
    # Of the same second, the same position and the same list.
    for _ in range(3):
        again = get_page(account.live, sortBy="email", first=1)["pageInfo"]
        assert again["startCursor"] == again["endCursor"]


def test_etag_is_stable_while_another_merchant_writes(account: Account, service: Service) -> None:
    created = account.live.post("/consumers", json={"fullName": "Ann"})
    path = f"/consumers/{created.json()['id']}"
    with new_account(service) as other:
        for number in range(3):
            other.live.post("/consumers/batch", json=[{}] * number).raise_for_status()
            assert account.live.get(path).headers["ETag"] == created.headers["ETag"]
    with service.without("api"):
        pass
    assert account.live.get(path).headers["ETag"] == created.headers["ETag"]


def test_refused_precondition_shows_the_sealed_etag(account: Account) -> None:
    created = account.live.post("/consumers", json={})
    path = f"/consumers/{created.json()['id']}"
    for method in ("PUT", "DELETE"):
        response = account.live.request(method, path, json={} if method == "PUT" else None, headers={"If-Match": '"1"'})
        assert response.status_code == 412
        assert response.json()["message"].startswith(f"The current ETag is {created.headers['ETag']}: ")
        assert not re.search(r'"\d+"', response.text)


def test_replayed_response_has_the_sealed_token_and_etag(account: Account) -> None:
    responses = [account.live.post("/consumers", json={}, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert responses[1].headers["Idempotent-Replayed"] == "true"
    for name in (TOKEN, "ETag"):
        assert responses[0].headers[name] == responses[1].headers[name]
    assert "Index-Stale" not in read(account.live, responses[1].headers[TOKEN], "wait=10").headers


@pytest.fixture
def upgraded(service: Service, account: Account, tmp_path: Path) -> Iterator["Upgraded"]:
    """A second API on the shared database; `unsealed_until` can be set while this API is stopped."""
    second = Service(service.database.on_other_ports(), tmp_path)
    headers = {"Authorization": account.live.headers["Authorization"]}
    try:
        with httpx.Client(base_url=f"{second.url}/api/v1", headers=headers, timeout=30) as client:
            yield Upgraded(second, client, account)
    finally:
        second.close()
        set_unsealed_until(service.database, None)


class Upgraded(NamedTuple):
    api: Service
    client: httpx.Client
    account: Account

    def restart(self, unsealed_until: datetime | None) -> None:
        if self.api.running("api"):
            self.api.stop("api")
        set_unsealed_until(self.api.database, unsealed_until)
        self.api.start("api")


def set_unsealed_until(database: Database, moment: datetime | None) -> None:
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE sealing_keys SET unsealed_until = :moment"), {"moment": moment})


def test_former_tokens_and_etags_work_until_the_deadline(upgraded: Upgraded) -> None:
    consumer = str(create(upgraded.account.live, fullName="Ann")["id"])
    path, now = f"/consumers/{consumer}", datetime.now(UTC)
    for unsealed_until, is_accepted in (
        (now + timedelta(hours=1), True),
        (now - timedelta(hours=1), False),
        (None, False),
    ):
        upgraded.restart(unsealed_until)
        former = f'"{stored_version(upgraded.account, consumer)}"'
        response = read(upgraded.client, "1-5")
        assert response.status_code == 200 if is_accepted else faults(response).keys() == {TOKEN}
        response = upgraded.client.get(path, headers={"If-None-Match": former})
        assert response.status_code == (304 if is_accepted else 200)
        assert response.headers["ETag"] != former
        for tag, matches in ((former[:-1] + '0"', False), (former, is_accepted)):
            response = upgraded.client.put(path, json={"fullName": "Bea"}, headers={"If-Match": tag})
            assert response.status_code == (200 if matches else 412), response.text
            upgraded.client.put(path, json={"fullName": "Ann"}).raise_for_status()
            former = f'"{stored_version(upgraded.account, consumer)}"'


def test_process_does_not_start_without_a_key(quiet: Database) -> None:
    with quiet.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM sealing_keys"))
    command = [sys.executable, "-m", *Service.COMMANDS["api"]]
    ended = subprocess.run(command, env=os.environ | quiet.environ, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "The database has no sealing key: run `consumers migrate`" in ended.stdout + ended.stderr
