"""A taken e-mail address or external id is a normal 400, and no failed statement in the log of PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.imports.kinds import CONSUMERS
from infra.imports.run import Counts, connect, find_environment, run
from infra.local.servers import LocalServers
from tests.api.resources import create, faults
from tests.service import Account

Faults = set[tuple[int, str]]
PEOPLE = 2_000


@pytest.fixture
def new_log_lines(servers: LocalServers) -> Callable[[], str]:
    """Return what PostgreSQL has logged since the start of the test."""
    log = servers.running["database_url"].log
    start = log.stat().st_size

    def read() -> str:
        with log.open("rb") as file:
            file.seek(start)
            return file.read().decode()

    return read


def concurrently(account: Account, path: str, body: Any) -> Faults:
    """Send a request from eight clients at once; return the statuses, with the error of each refusal."""
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: account.live.post(path, json=body), range(8)))
    return {(response.status_code, response.json()["error"] if response.is_error else "") for response in responses}


def assert_first_change_wins(account: Account, path: str, new: dict[str, Any], value: dict[str, str]) -> None:
    """Give stored objects and new ones the same unique value, all at once. A single write succeeds."""
    ids = [create(account.live, path, **new)["id"] for _ in range(4)]
    writes = [partial(account.live.put, f"{path}/{each}", json=value) for each in ids]
    writes += [partial(account.live.post, path, json=new | value)] * 4
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda write: write().status_code, writes))
    assert sorted(statuses)[1:] == [400] * 7
    assert min(statuses) in {200, 201}


def import_people(account: Account, path: Path) -> Counts:
    """Import new people, and a row with the address of a stored consumer."""
    people = (f"P-{number},person.{number}@example.com" for number in range(PEOPLE))
    path.write_text("\n".join(["externalId,email", "C-2,ann@example.com", *people]))
    with connect(account.database.settings.database_url) as connection:
        return run(connection, path, CONSUMERS, find_environment(connection, account.name, "live"))


def test_taken_values_are_no_failed_statements(
    account: Account, new_log_lines: Callable[[], str], tmp_path: Path
) -> None:
    """PostgreSQL logs a failed statement with the taken value, unless its log is configured to be terse."""
    person = {"email": "ann@example.com", "externalId": "C-1"}
    buyer = create(account.live, **person)["id"]
    order = {"consumerId": buyer, "amount": 1, "externalId": "O-1"}
    create(account.live, "/orders", **order)
    taken: dict[str, list[Any]] = {
        "/consumers": [{"email": "ANN@example.com"}, {"externalId": "C-1"}, person],
        "/consumers/batch": [[{"fullName": "B"}, person]],
        "/orders": [order],
        "/orders/batch": [[order | {"externalId": "O-2"}, order]],
    }
    repeated: dict[str, list[Any]] = {
        "/consumers/batch": [{"email": "b@example.com"}, {"email": "B@example.com"}],
        "/orders/batch": [order | {"externalId": "O-3"}] * 2,
    }
    for path, bodies in taken.items():
        for body in bodies:
            response = account.live.post(path, json=body)
            assert response.status_code == 400
            assert response.json()["error"] in {"Email already exists", "External ID already exists"}
    for path, body in repeated.items():
        response = account.live.post(path, json=body)
        assert list(faults(response).values()) == ["Same as [0]"]
        assert response.json()["error"] == "Validation failed"
    new = {"fullName": "C", "email": "c@example.com"}
    assert concurrently(account, "/consumers", new) == {(201, ""), (400, "Email already exists")}
    batch = [{"externalId": f"D-{number}"} for number in range(50)]
    assert concurrently(account, "/consumers/batch", batch) == {(201, ""), (400, "External ID already exists")}
    for round_ in range(4):
        assert_first_change_wins(account, "/consumers", {}, {"email": f"e{round_}@example.com"})
        assert_first_change_wins(account, "/orders", {"consumerId": buyer, "amount": 1}, {"externalId": f"P-{round_}"})
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda name: import_people(account, tmp_path / f"{name}.csv"), ["one", "two"]))
    assert sum(count.inserted for count in counts) == PEOPLE
    assert all(count.rejected == 1 for count in counts)
    assert "ERROR" not in new_log_lines()
