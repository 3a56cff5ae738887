"""Any history of real requests, statements, imports and faults, on the whole service, ends with index = database."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import redis
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from opensearchpy import OpenSearch

from infra.index import naming
from infra.index.client import open_writer
from infra.local.servers import LocalServers
from tests.guarantees.conftest import crash
from tests.guarantees.index_comparison import assert_agreement_soon
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

COMMAND = str(Path(sys.executable).with_name("consumers"))
PLACES = st.integers(0, 11)
NAMES = st.sampled_from(["Ann", "Bo", "Zoë Ødegård", "田中太郎"])
WORKERS = st.sampled_from(["worker", "background", "beat"])
SETTLED = {200, 201, 404}
BY_HAND = {
    "insert": "INSERT INTO consumers (environment_id, full_name) SELECT :e, :name FROM generate_series(1, 3)",
    "rename all": "UPDATE consumers SET full_name = :name WHERE environment_id = :e",
    "delete by name": "DELETE FROM consumers WHERE environment_id = :e AND full_name = :name",
    "cancel": "UPDATE orders SET status = 'CANCELLED' WHERE environment_id = :e",
    "leave": "DELETE FROM audience_members WHERE environment_id = :e",
}


class Late(NamedTuple):
    """A document as it once was, on its way still."""

    consumer: str
    version: int
    source: bytes


class Got(msgspec.Struct, rename={"version": "_version", "source": "_source"}):
    found: bool
    version: int = 0
    source: msgspec.Raw = msgspec.Raw(b"{}")


class RealHistories(RuleBasedStateMachine):
    """Over HTTP, in SQL, by import; processes are killed, Redis is emptied, OpenSearch is killed once an example."""

    def __init__(
        self, service: Service, servers: LocalServers, account: Account, writer: OpenSearch, folder: Path
    ) -> None:
        super().__init__()
        self.service, self.servers, self.account = service, servers, account
        self.writer, self.folder = writer, folder
        self.index = naming.index_name(account.database.settings.index_prefix, 1)
        self.known: list[str] = []
        self.late: list[Late] = []
        self.has_crashed = False

    @initialize()
    def open(self) -> None:
        response = self.account.live.post("/audiences", json={"name": "Friends", "type": "STATIC"})
        self.audience = response.raise_for_status().json()["id"]

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        self._made([self._send("POST", "/consumers", {"fullName": name}).json()])

    @rule(name=NAMES, number=st.integers(1, 20))
    def batch(self, name: str, number: int) -> None:
        self._made(self._send("POST", "/consumers/batch", [{"fullName": name}] * number).json())

    @precondition(lambda self: self.known)
    @rule(place=PLACES, name=NAMES)
    def change(self, place: int, name: str) -> None:
        self._send("PUT", f"/consumers/{self._one(place)}", {"fullName": name})

    @precondition(lambda self: self.known)
    @rule(place=PLACES)
    def delete(self, place: int) -> None:
        self._send("DELETE", f"/consumers/{self._one(place)}")

    @precondition(lambda self: self.known)
    @rule(place=PLACES)
    def order(self, place: int) -> None:
        self.account.live.post("/orders", json={"consumerId": self._one(place), "amount": 5})

    @precondition(lambda self: self.known)
    @rule(place=PLACES, method=st.sampled_from(["POST", "DELETE"]))
    def member(self, place: int, method: str) -> None:
        body = {"consumerIds": [self._one(place)]}
        self.account.live.request(method, f"/audiences/{self.audience}/members", json=body)

    @rule(statement=st.sampled_from(list(BY_HAND)), name=NAMES)
    def by_hand(self, statement: str, name: str) -> None:
        with self.account.database.engine.begin() as connection:
            connection.execute(sa.text(BY_HAND[statement]), {"e": self.account.live_environment, "name": name})

    @rule(name=NAMES, number=st.integers(1, 50))
    def bring_in(self, name: str, number: int) -> None:
        file = self.folder / "consumers.csv"
        file.write_text("externalId,fullName\n" + "".join(f"x{row},{name}\n" for row in range(number)))
        command = [COMMAND, "import", "consumers", str(file), "--org", self.account.name]
        subprocess.run(command, env=os.environ | self.account.database.environ, check=True, capture_output=True)

    @rule(name=WORKERS)
    def kill(self, name: str) -> None:
        self.service.stop(name, signal.SIGKILL)
        self.service.start(name)

    @rule()
    def flush(self) -> None:
        with redis.Redis.from_url(self.servers.valkey.url) as client:
            client.flushall()

    @precondition(lambda self: not self.has_crashed)
    @rule()
    def crash(self) -> None:
        self.has_crashed = True
        crash(self.servers.opensearch)

    @precondition(lambda self: self.known)
    @rule(place=PLACES)
    def remember(self, place: int) -> None:
        """What the index says of a consumer now may be sent again, much later."""
        consumer = self._one(place)
        response: Any = self._index().get(index=self.index, id=consumer, params={"ignore": 404})
        found = msgspec.json.decode(response, type=Got)
        if found.found:
            self.late.append(Late(consumer, found.version, bytes(found.source)))

    @precondition(lambda self: self.late)
    @rule(place=PLACES)
    def replay(self, place: int) -> None:
        late = self.late[place % len(self.late)]
        params = {"version": late.version, "version_type": "external_gte", "ignore": 409}
        self._index().index(index=self.index, id=late.consumer, body=late.source, params=params)

    @rule()
    def rest(self) -> None:
        wait_until(self.servers.opensearch.ready, what="OpenSearch")
        assert_agreement_soon(self.account.database)

    def teardown(self) -> None:
        self.rest()

    def _index(self) -> OpenSearch:
        wait_until(self.servers.opensearch.ready, what="OpenSearch")
        return self.writer

    def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        response = self.account.live.request(method, path, json=body)
        assert response.status_code in SETTLED, response.text
        return response

    def _made(self, rows: list[Any]) -> None:
        self.known += [row["id"] for row in rows]

    def _one(self, place: int) -> str:
        return self.known[place % len(self.known)]


def test_any_history_of_requests_statements_imports_and_faults_ends_with_the_index_as_the_database(
    own_servers: LocalServers, own_service: Service, tmp_path: Path
) -> None:
    with (
        new_account(own_service) as account,
        closing(open_writer(account.database.settings)) as writer,
    ):
        run_state_machine_as_test(
            lambda: RealHistories(own_service, own_servers, account, writer, tmp_path),  # type: ignore[arg-type]  # it makes one
            settings=settings(
                max_examples=6,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
