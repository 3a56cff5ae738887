"""`consumers index rebuild`, `pause`, `resume`, `cancel`, `rollback` and `drop`."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from indexer.rebuild import fill
from indexer.rebuild.builder import Builder
from infra import queue
from infra.operations import rebuild as rebuilds
from infra.settings import Settings
from tests.cli import ConsumersCommand, consumers_command
from tests.indexer.conftest import Pipeline
from tests.indexer.rebuild_steps import (
    advance_to,
    indices_read,
    insert_consumers,
    latest_rebuild,
    rebuild,
    run_to_end,
    second_index,
    send_request,
)
from tests.metrics import metrics
from tests.service import PatientService, new_account

METRIC_FIELDS = {
    "documents": "documents",
    "consumers": "total",
    "misses": "misses",
    "paused": "isPaused",
    "documents_per_second": "documentsPerSecond",
    "remaining_seconds": "remainingSeconds",
}
"""Metrics, and the corresponding fields of the status."""


@pytest.fixture
def consumers(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> ConsumersCommand:
    return consumers_command(pipeline.database, monkeypatch, capsys)


class TamperingBuilder:
    """A builder that adds a wrong document to the new index before the verification."""

    def __init__(self, builder: Builder, pipeline: Pipeline) -> None:
        self._builder, self._pipeline = builder, pipeline

    def work(self, seconds: float) -> bool:
        with self._pipeline.database.engine.connect() as connection:
            generation = rebuilds.latest(connection)
        if not generation or not generation.is_running or generation.phase != "refilling":
            return self._builder.step()
        self._pipeline.writer.index(index=generation.index_name, id="cons_nobody", body=b'{"id": "cons_nobody"}')
        return self._builder.work(seconds)


@contextmanager
def worker(builder: Builder | TamperingBuilder) -> Iterator[None]:
    """Run a builder in the background."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.05):
            builder.work(1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_rebuild_is_requested_and_builders_are_woken(
    pipeline: Pipeline,
    consumers: ConsumersCommand,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    queue_client: redis.Redis,
) -> None:
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    output = json.loads(consumers("index", "rebuild", "--json").out)
    assert (output["indexName"], output["state"], output["phase"]) == (second_index(pipeline), "filling", "requested")
    assert queue_client.llen(queue.key_prefix(settings) + queue.REBUILD) == 1


def test_second_rebuild_is_refused_in_one_line(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    assert consumers("index", "rebuild").code == 0
    refused = consumers("index", "rebuild")
    assert refused.code == 1
    message = "is already being built (phase requested): wait until it ends, or cancel it"
    assert refused.err == f"{second_index(pipeline)} {message}\n"


def test_rebuild_with_wait_shows_progress_and_result(
    pipeline: Pipeline, builder: Builder, consumers: ConsumersCommand
) -> None:
    insert_consumers(pipeline, 50)
    pipeline.drain()
    with worker(builder):
        result = consumers("index", "rebuild", "--wait")
    assert result.code == 0
    assert result.out.splitlines()[-1].startswith(f"{second_index(pipeline)}: live, done, 50 of 50 documents")
    with worker(builder):
        rollback = consumers("index", "rollback", "--wait", "--json")
    assert json.loads(rollback.out.splitlines()[-1])["state"] == "live"
    assert indices_read(pipeline) == [pipeline.index_name]


def test_failed_rebuild_has_exit_code_1(pipeline: Pipeline, builder: Builder, consumers: ConsumersCommand) -> None:
    pipeline.insert_consumer()
    pipeline.drain()
    with worker(TamperingBuilder(builder, pipeline)):
        result = consumers("index", "rebuild", "--wait")
    assert result.code == 1
    assert "verification found 1 differences" in result.out


def test_pause_resume_cancel_and_drop_report_their_effect(
    pipeline: Pipeline, builder: Builder, consumers: ConsumersCommand
) -> None:
    send_request(pipeline, "rebuild")
    assert "paused" in consumers("index", "pause").out
    assert "paused" not in consumers("index", "resume").out
    assert "cancel requested" in consumers("index", "cancel").out
    assert run_to_end(pipeline, builder).phase == "cancelled"
    for request in ("cancel", "pause", "resume", "rollback", "drop"):
        assert consumers("index", request).code == 1
    rebuild(pipeline, builder)
    assert consumers("index", "drop").code == 0


def test_progress_is_equal_in_cli_api_and_metrics(
    pipeline: Pipeline, builder: Builder, consumers: ConsumersCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fill, "SLICE_ROWS", 20)
    insert_consumers(pipeline, 50)
    pipeline.drain()
    service = PatientService(pipeline.database, tmp_path)
    service.start("api")
    try:
        with new_account(service) as account:
            send_request(pipeline, "rebuild")
            advance_to(pipeline, builder, "filling")
            assert builder.step()
            send_request(pipeline, "pause")
            for phase, filled in (("filling", 20), ("done", 50)):
                shown = json.loads(consumers("index", "status", "--json").out)["rebuild"]
                over_http = account.operator.get("/ops/index").raise_for_status().json()["rebuild"]
                counted = metrics(service)
                assert (shown["phase"], shown["documents"], shown["total"]) == (phase, filled, 50)
                assert {**over_http, "lagMs": 0} == {**shown, "lagMs": 0}
                assert counted["consumers_rebuild_phase", phase] == 1
                assert counted["consumers_rebuild_running",] == (phase != "done")
                for name, field in METRIC_FIELDS.items():
                    assert counted.get((f"consumers_rebuild_{name}",)) == shown[field], name
                if shown["isPaused"]:
                    send_request(pipeline, "resume")
                    run_to_end(pipeline, builder)
    finally:
        service.close()


def test_status_shows_generations_and_the_rebuild(
    pipeline: Pipeline, builder: Builder, consumers: ConsumersCommand
) -> None:
    insert_consumers(pipeline, 3)
    pipeline.drain()
    rebuild(pipeline, builder)
    content = json.loads(consumers("index", "status", "--json").out)
    assert [generation["state"] for generation in content["generations"]] == ["kept", "live"]
    assert content["rebuild"]["id"] == latest_rebuild(pipeline).id
    assert (content["rebuild"]["documents"], content["rebuild"]["phase"]) == (3, "done")
    assert "Last rebuild: " in consumers("index", "status").out
