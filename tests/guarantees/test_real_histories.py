"""Any history of real requests, statements, imports and faults ends with an index equal to the database."""

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
from tests.guarantees.index_comparison import assert_index_soon_equals_database
from tests.service import Account, Service, new_account
from tests.waiting import wait_until

COMMAND = str(Path(sys.executable).with_name("consumers"))
INDEXES = st.integers(0, 11)
NAMES = st.sampled_from(["Ann", "Bo", "Zoë Ødegård", "田中太郎"])
WORKERS = st.sampled_from(["worker", "background", "beat"])
SETTLED = {200, 201, 404}
STATEMENTS = {
    "insert": "INSERT INTO consumers (environment_id, full_name) SELECT :e, :name FROM generate_series(1, 3)",
    "rename all": "UPDATE consumers SET full_name = :name WHERE environment_id = :e",
    "delete by name": "DELETE FROM consumers WHERE environment_id = :e AND full_name = :name",
    "cancel": "UPDATE orders SET status = 'CANCELLED' WHERE environment_id = :e",
    "leave": "DELETE FROM audience_members WHERE environment_id = :e",
}


class LateDocument(NamedTuple):
    """An old document with a write that has not arrived yet."""

    consumer: str
    version: int
    source: bytes


class FetchedDocument(msgspec.Struct, rename={"version": "_version", "source": "_source"}):
    found: bool
    version: int = 0
    source: msgspec.Raw = msgspec.Raw(b"{}")


class RealHistories(RuleBasedStateMachine):
    """Writes over HTTP, in SQL and by import; killed processes, flushes of Redis, an OpenSearch crash per example."""

    def __init__(
        self, service: Service, servers: LocalServers, account: Account, writer: OpenSearch, folder: Path
    ) -> None:
        super().__init__()
        self.service, self.servers, self.account = service, servers, account
        self.writer, self.folder = writer, folder
        self.index = naming.index_name(account.database.settings.index_prefix, 1)
        self.routing = naming.routing(account.live_environment)
        self.ids: list[str] = []
        self.late_documents: list[LateDocument] = []
        self.has_crashed = False

    @initialize()
    def open(self) -> None:
        response = self.account.live.post("/audiences", json={"name": "Friends", "type": "STATIC"})
        self.audience = response.raise_for_status().json()["id"]

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        self._add_ids([self._send("POST", "/consumers", {"fullName": name}).json()])

    @rule(name=NAMES, number=st.integers(1, 20))
    def batch(self, name: str, number: int) -> None:
        self._add_ids(self._send("POST", "/consumers/batch", [{"fullName": name}] * number).json())

    @precondition(lambda self: self.ids)
    @rule(nth=INDEXES, name=NAMES)
    def change(self, nth: int, name: str) -> None:
        self._send("PUT", f"/consumers/{self._consumer(nth)}", {"fullName": name})

    @precondition(lambda self: self.ids)
    @rule(nth=INDEXES)
    def delete(self, nth: int) -> None:
        self._send("DELETE", f"/consumers/{self._consumer(nth)}")

    @precondition(lambda self: self.ids)
    @rule(nth=INDEXES)
    def order(self, nth: int) -> None:
        self.account.live.post("/orders", json={"consumerId": self._consumer(nth), "amount": 5})

    @precondition(lambda self: self.ids)
    @rule(nth=INDEXES, method=st.sampled_from(["POST", "DELETE"]))
    def member(self, nth: int, method: str) -> None:
        body = {"consumerIds": [self._consumer(nth)]}
        self.account.live.request(method, f"/audiences/{self.audience}/members", json=body)

    @rule(statement=st.sampled_from(list(STATEMENTS)), name=NAMES)
    def run_sql(self, statement: str, name: str) -> None:
        with self.account.database.engine.begin() as connection:
            connection.execute(sa.text(STATEMENTS[statement]), {"e": self.account.live_environment, "name": name})

    @rule(name=NAMES, number=st.integers(1, 50))
    def import_file(self, name: str, number: int) -> None:
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

    @precondition(lambda self: self.ids)
    @rule(nth=INDEXES)
    def keep_document(self, nth: int) -> None:
        """Keep the current document of a consumer, to be sent again later."""
        consumer = self._consumer(nth)
        params = {"routing": self.routing, "ignore": 404}
        response: Any = self._index().get(index=self.index, id=consumer, params=params)
        document = msgspec.json.decode(response, type=FetchedDocument)
        if document.found:
            self.late_documents.append(LateDocument(consumer, document.version, bytes(document.source)))

    @precondition(lambda self: self.late_documents)
    @rule(nth=INDEXES)
    def replay(self, nth: int) -> None:
        late = self.late_documents[nth % len(self.late_documents)]
        params = {
            "routing": self.routing,
            "version": late.version,
            "version_type": "external_gte",
            "ignore": 409,
        }
        self._index().index(index=self.index, id=late.consumer, body=late.source, params=params)

    @rule()
    def settle(self) -> None:
        wait_until(self.servers.opensearch.ready, what="OpenSearch")
        assert_index_soon_equals_database(self.account.database)

    def teardown(self) -> None:
        self.settle()

    def _index(self) -> OpenSearch:
        wait_until(self.servers.opensearch.ready, what="OpenSearch")
        return self.writer

    def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        response = self.account.live.request(method, path, json=body)
        assert response.status_code in SETTLED, response.text
        return response

    def _add_ids(self, rows: list[Any]) -> None:
        self.ids += [row["id"] for row in rows]

    def _consumer(self, nth: int) -> str:
        return self.ids[nth % len(self.ids)]


def test_any_real_history_ends_with_index_equal_to_database(
    own_servers: LocalServers, own_service: Service, tmp_path: Path
) -> None:
    with (
        new_account(own_service) as account,
        closing(open_writer(account.database.settings)) as writer,
    ):
        run_state_machine_as_test(
            lambda: RealHistories(own_service, own_servers, account, writer, tmp_path),  # type: ignore[arg-type]  # it returns a machine
            settings=settings(
                max_examples=6,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
