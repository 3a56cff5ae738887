"""Rows of docs/operations.md: the symptom is caused, users notice what the row says, and the command mends it.

`tests/unit/test_runbook.py` lists the test of each row, here and elsewhere.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import sqlalchemy as sa
from opensearchpy import OpenSearch

from indexer.drain.claims import MAX_ATTEMPTS
from indexer.drain.round import ROUND_SECONDS
from infra.index import naming
from infra.index.client import open_writer
from infra.local.servers import THROWAWAY, LocalServers
from infra.operations import outbox
from infra.operations.verify import MAX_STORED_DIFFERENCES
from tests.cli import ConsumersCommand, consumers_command
from tests.cluster.server_faults import stopped
from tests.indexer.conftest import Pipeline
from tests.indexer.index_faults import FAULTS, rewrite_document
from tests.indexer.server_faults import UNPARSABLE_METADATA
from tests.service import Account, Service, new_account, new_database
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster

PARTS = ("worker", "background", "beat")
SILENCE_SECONDS = 60
LIMITS = {"reads": 1_000_000, "writes": 1_000_000}
"""Never reached, so that every response has the headers of the limits."""


class Site(NamedTuple):
    """The whole service on servers of its own, with an account."""

    service: Service
    servers: LocalServers
    account: Account
    pipeline: Pipeline
    """The environment of the account, for faults of the index."""

    @property
    def search(self) -> OpenSearch:
        return self.account.database.search

    @property
    def index_name(self) -> str:
        return self.pipeline.index_name

    def create(self, name: str) -> httpx.Response:
        return self.account.live.post("/consumers", json={"fullName": name}).raise_for_status()

    def search_for(self, name: str, written: httpx.Response | None = None) -> httpx.Response:
        """List by a name, with the token of a write."""
        headers = {"Consistency-Token": written.headers["Consistency-Token"]} if written else {}
        return self.account.live.get("/consumers", params={"search": name}, headers=headers)

    def names(self, name: str) -> list[str]:
        response = self.search_for(name)
        return [row["fullName"] for row in response.json()["data"]] if response.is_success else ["unavailable"]

    def metrics(self) -> str:
        return httpx.get(f"{self.service.operations_url}/metrics").text

    def wait_for(self, name: str) -> None:
        """Wait until a consumer is found, and no change waits."""
        wait_until(lambda: self.names(name) == [name], SILENCE_SECONDS, f"{name} in the search")
        self.account.settled()

    def wait_for_line(self, *texts: str, processes: tuple[str, ...] = PARTS) -> None:
        """Wait until the log of a process has a line with all texts."""

        def is_logged() -> bool:
            lines = "".join(self.service.log(name) for name in processes).splitlines()
            return any(all(text in line for text in texts) for line in lines)

        wait_until(is_logged, SILENCE_SECONDS, f"the line {texts}")

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        for name in names:
            self.service.signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                self.service.signal(name, signal.SIGCONT)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    profile = THROWAWAY._replace(durable=True)
    with (
        LocalServers(tmp_path_factory.mktemp("servers"), profile, environ={}) as servers,
        new_database(servers) as database,
    ):
        service = Service(database, tmp_path_factory.mktemp("service"))
        writer = open_writer(database.settings)
        try:
            service.start_all(workers=2)
            with new_account(service, limits=LIMITS) as account:
                yield Site(service, servers, account, Pipeline(database, writer, account.live_environment))
        finally:
            service.close()
            writer.close()


@pytest.fixture
def consumers(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> ConsumersCommand:
    return consumers_command(site.account.database, monkeypatch, capsys)


# The oldest change gets older: the reasons of `drain_postponed`


@contextmanager
def setting_of_index(site: Site, name: str, value: object) -> Iterator[None]:
    site.search.indices.put_settings(index=site.index_name, body={name: value})
    try:
        yield
    finally:
        site.search.indices.put_settings(index=site.index_name, body={name: None})


@contextmanager
def overloaded(site: Site) -> Iterator[None]:
    """OpenSearch refuses requests with 429, as if memory were short."""
    name = "network.breaker.inflight_requests.limit"
    site.search.cluster.put_settings(body={"transient": {name: "1b"}})
    try:
        yield
    finally:
        site.search.cluster.put_settings(body={"transient": {name: None}})


@contextmanager
def closed(site: Site) -> Iterator[None]:
    site.search.indices.close(index=site.index_name)
    try:
        yield
    finally:
        site.search.indices.open(index=site.index_name)


@contextmanager
def without_write_alias(site: Site) -> Iterator[None]:
    """Beat restores the alias, as soon as it runs again."""
    with site.frozen("beat"):
        site.search.indices.delete_alias(index=site.index_name, name=naming.write_alias(site.index_name))
        yield
    site.wait_for_line("alias_restored", processes=("beat",))


def without_opensearch(site: Site) -> AbstractContextManager[None]:
    return stopped(site.servers.opensearch)


class Postponed(NamedTuple):
    cause: Callable[[Site], AbstractContextManager[None]]
    reason: str
    """A part of the reason in the log."""
    is_searchable: bool = True
    """Whether lists answer meanwhile, with an old state; else they are 503."""


POSTPONED = {
    "`429 cluster_block_exception`": Postponed(
        lambda site: setting_of_index(site, "index.blocks.read_only_allow_delete", value=True),
        "429 cluster_block_exception",
    ),
    "`404 index_not_found_exception`": Postponed(without_write_alias, "404 index_not_found_exception"),
    "`every document is refused: …`": Postponed(
        lambda site: setting_of_index(site, "index.final_pipeline", "not-there"), "every document is refused"
    ),
    "`… 400 index_closed_exception`": Postponed(closed, "400 index_closed_exception", is_searchable=False),
    "`TransportError 429`, other `429 …`": Postponed(overloaded, "TransportError 429", is_searchable=False),
    "`ConnectionError …`, `ConnectionTimeout …`": Postponed(
        without_opensearch, '"reason":"Connection', is_searchable=False
    ),
}


@pytest.mark.parametrize("row", POSTPONED)
def test_postponed_changes_become_searchable_once_the_cause_is_gone(site: Site, row: str) -> None:
    fault = POSTPONED[row]
    name = f"Postponed{list(POSTPONED).index(row)}x"
    with fault.cause(site):
        written = site.create(name)
        site.wait_for_line("drain_postponed", fault.reason)
        listed = site.search_for(name, written)
        if fault.is_searchable:
            assert (listed.status_code, listed.json()["data"]) == (200, [])
            assert listed.headers["Index-Stale"] == "true"
            assert int(listed.headers["Index-Lag-Ms"]) > 0
        else:
            assert (listed.status_code, listed.json()["error"]) == (503, "Search unavailable")
        assert site.account.live.get(f"/consumers/{written.json()['id']}").json()["fullName"] == name
    site.wait_for(name)


def test_round_that_postgresql_delays_is_repeated(site: Site) -> None:
    with site.account.database.engine.begin() as connection:
        with site.frozen("worker", "beat"):
            written = site.create("Delayed")
            connection.execute(sa.text("LOCK TABLE consumers IN ACCESS EXCLUSIVE MODE"))
        listed = site.search_for("Delayed", written)
        connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": 2 * ROUND_SECONDS})
    assert (listed.json()["data"], listed.headers["Index-Stale"]) == ([], "true")
    site.wait_for_line("drain_postponed", "the round took too long before its write")
    site.wait_for("Delayed")


def test_requests_are_503_while_postgresql_is_away(site: Site) -> None:
    with stopped(site.servers.postgres):
        site.wait_for_line("_postponed", "OperationalError")
        # A list may still know the age of its data for a second or two.
        wait_until(lambda: site.account.live.get("/consumers").is_error, what="a failed list")
        answers = [site.account.live.post("/consumers", json={"fullName": "A"}), site.account.live.get("/consumers")]
        assert [(each.status_code, each.json()["error"]) for each in answers] == [(503, "Database unavailable")] * 2
        wait_until(lambda: "consumers_database_up 0.0" in site.metrics(), what="the metric")
        wait_until(lambda: "consumers_outbox_waiting" not in site.metrics(), what="metrics without the database")
    wait_until(lambda: site.account.live.get("/consumers").is_success, SILENCE_SECONDS, "the API")
    site.create("After the database")
    site.wait_for("After the database")


# Redis


def test_changes_take_a_second_and_limits_are_off_while_redis_is_away(site: Site) -> None:
    with stopped(site.servers.valkey):
        assert "X-RateLimit-Limit" not in site.create("Without Redis").headers
        site.wait_for("Without Redis")
    for name in ("worker", "background"):
        if not site.service.running(name):  # a supervisor starts it again
            site.service.stop(name)
            site.service.start(name)
    wait_until(lambda: "X-RateLimit-Limit" in site.create("Afterwards").headers, what="the limits")
    site.wait_for_line("queue_unreachable", processes=("api",))
    site.wait_for_line("queue_recovered", processes=("api",))


# Processes that hang


def test_hanging_api_process_is_replaced(site: Site) -> None:
    started = "Started server process"
    before = site.service.log("api").count(started)
    os.kill(site.service.children("api")[-1], signal.SIGSTOP)
    wait_until(lambda: site.service.log("api").count(started) > before, SILENCE_SECONDS, "another process")
    site.create("After the replacement")
    site.wait_for("After the replacement")


def test_changes_by_the_api_and_by_sql_continue_without_beat(site: Site) -> None:
    insert = "INSERT INTO consumers (environment_id, full_name) VALUES (:e, 'By SQL')"
    with site.service.without("beat"):
        site.pipeline.run(insert)
        site.create("By the API")
        wait_until(lambda: site.names("By the API") == ["By the API"], SILENCE_SECONDS, "the change by the API")
        silent = 'consumers_indexer_silent_seconds{part="clock"} +Inf'
        wait_until(lambda: silent in site.metrics(), SILENCE_SECONDS, "the silence of beat in the metrics")
        site.wait_for("By SQL")


# Parked changes


def test_parked_change_is_indexed_after_its_value_is_corrected(site: Site, consumers: ConsumersCommand) -> None:
    consumer = site.create("Refused").json()["id"]
    site.wait_for("Refused")
    update = "UPDATE consumers SET full_name = 'Changed', metadata = CAST(:metadata AS jsonb) WHERE id = :id"
    site.pipeline.run(update, id=consumer, metadata=UNPARSABLE_METADATA)
    site.wait_for_line("document_refused", consumer)
    assert site.names("Refused") == ["Refused"]
    assert site.account.live.get(f"/consumers/{consumer}").json()["fullName"] == "Changed"
    # Instead of 85 seconds.
    last = "UPDATE outbox SET attempts = :last, retry_at = now() WHERE consumer_id = :id AND parked_at IS NULL"
    site.pipeline.run(last, id=consumer, last=MAX_ATTEMPTS - 1)

    def parked() -> list[outbox.Parked]:
        with site.account.database.engine.connect() as connection:
            return outbox.parked(connection, 20)

    wait_until(parked, SILENCE_SECONDS, "the parked change")
    assert consumer in consumers("index", "status").out
    assert "1 parked change " in consumers("index", "retry-parked", "--id", consumer).out
    wait_until(lambda: not parked(), what="the retry")
    corrected = {"fullName": "Corrected", "metadata": None}
    site.account.live.put(f"/consumers/{consumer}", json=corrected).raise_for_status()
    site.wait_for("Corrected")
    assert parked() == []


# The index differs


INSERT_MANY = "INSERT INTO consumers (environment_id, full_name) SELECT :e, 'Many' FROM generate_series(1, :number)"


def alter(pipeline: Pipeline, consumer: str) -> str:
    """Change the name that lists show."""
    shown = pipeline.document(consumer)["row"] | {"fullName": "Mallory"}
    return rewrite_document(pipeline, consumer, row=shown, fullName="Mallory")


DIFFERENCES = {
    "`missing`": FAULTS["removed"].plant,
    "`stale`": FAULTS["a change lost"].plant,
    "`ahead`, `content`": alter,
    "`resurrected`": FAULTS["a delete lost"].plant,
    "`foreign`": FAULTS["id without prefix"].plant,
}
"""A fault of the index for each row of causes."""


@pytest.mark.parametrize("row", DIFFERENCES)
def test_difference_is_found_and_repaired(site: Site, consumers: ConsumersCommand, row: str) -> None:
    before = f"Differing{list(DIFFERENCES).index(row)}x"
    consumer = site.create(before).json()["id"]
    site.wait_for(before)
    # The watch would repair nothing, but beat may be about to index the change that the fault loses.
    with site.frozen(*PARTS):
        DIFFERENCES[row](site.pipeline, consumer)
    response = site.account.live.get(f"/consumers/{consumer}")
    stored = [response.json()["fullName"]] if response.is_success else []
    listed = _listed(site, consumer)
    assert listed != stored, "users notice the difference in lists"
    environment = f"{site.account.name}:live"
    assert consumers("index", "verify", "--environment", environment).code == 1
    consumers("index", "repair", "--environment", environment)
    wait_until(lambda: _listed(site, consumer) == stored, SILENCE_SECONDS, "the repair")
    site.account.settled()
    assert consumers("index", "verify", "--environment", environment).code == 0


def test_run_waits_for_a_worker_and_for_opensearch(site: Site, tmp_path: Path) -> None:
    site.create("Compared")
    site.wait_for("Compared")
    output = tmp_path / "verify.log"
    program = str(Path(sys.executable).with_name("consumers"))
    command = [program, "index", "verify", "--environment", f"{site.account.name}:live"]

    def wait_for_message(text: str) -> None:
        wait_until(lambda: text in output.read_text("utf-8"), SILENCE_SECONDS, text)

    environ = os.environ | site.account.database.environ
    with ExitStack() as stack:
        with site.frozen("background", "beat"), output.open("wb") as file:
            running = subprocess.Popen(command, stdout=file, stderr=file, env=environ)
            wait_for_message(" waits for a worker")
            stack.enter_context(stopped(site.servers.opensearch))
        wait_for_message(" waits: ")
    assert running.wait(SILENCE_SECONDS) == 0, output.read_text("utf-8")


def test_more_differences_than_a_run_stores_are_repaired(site: Site, consumers: ConsumersCommand) -> None:
    """Last, because it leaves many consumers."""
    site.pipeline.run(INSERT_MANY, number=MAX_STORED_DIFFERENCES + 1)
    site.account.settled()
    of_account = {"query": {"term": {"environmentId": str(site.pipeline.environment)}}}
    site.search.delete_by_query(
        index=site.index_name, body=of_account, params={"refresh": "true", "request_timeout": 60}
    )
    found = consumers("index", "verify", "--environment", f"{site.account.name}:live", "--json")
    assert found.code == 1
    run = str(json.loads(found.out.splitlines()[-1])["id"])
    refused = consumers("index", "repair", "--run", run)
    assert f"of which {MAX_STORED_DIFFERENCES} are stored" in refused.err
    consumers("index", "repair", "--environment", f"{site.account.name}:live")
    site.account.settled()
    assert consumers("index", "verify", "--environment", f"{site.account.name}:live").code == 0


def _listed(site: Site, consumer: str) -> list[Any]:
    """Return the names under which lists show a consumer."""
    rows = site.account.live.get("/consumers", params={"first": 100}).raise_for_status().json()["data"]
    return [row["fullName"] for row in rows if row["id"] == consumer]
