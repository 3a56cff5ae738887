"""Two databases with one index prefix: the index of another installation is refused, by name, and stays as it is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from indexer.rebuild.lost_index import reconcile
from infra import queue
from infra.database.engine import open_engine
from infra.index.ownership import ForeignIndexError
from infra.local.servers import LocalServers
from infra.operations import first_generation
from infra.settings import Settings
from tests.databases import migrated_database
from tests.indexer.conftest import Pipeline, new_pipeline, owner_of
from tests.service import Account, Database, Service
from tests.waiting import wait_until

FOREIGN = "11111111-1111-1111-1111-111111111111"


@pytest.fixture
def second(servers: LocalServers, pipeline: Pipeline) -> Iterator[Database]:
    """A migrated database without an index, with the index prefix of the first."""
    with migrated_database(servers, "second") as url:
        settings = msgspec.structs.replace(pipeline.database.settings, database_url=url)
        engine = open_engine(settings)
        yield Database(settings, engine, pipeline.database.search)
        engine.dispose()


def set_owner(pipeline: Pipeline, owner: str | None) -> None:
    """Write another owner into the mapping's `_meta`, or none, as by an earlier release."""
    mappings = pipeline.database.search.indices.get_mapping(index=pipeline.index_name)[pipeline.index_name]["mappings"]
    meta = {name: value for name, value in mappings["_meta"].items() if name != "installation"}
    body = {"_meta": meta | ({"installation": owner} if owner else {})}
    pipeline.database.search.indices.put_mapping(index=pipeline.index_name, body=body)


def state_of_cluster(pipeline: Pipeline) -> Any:
    prefix = pipeline.database.settings.index_prefix
    answer = pipeline.database.search.indices.get(index=f"{prefix}*")
    return {name: (index["aliases"], index["mappings"], index["settings"]) for name, index in answer.items()}


def run_command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "OPENSEARCH_URL": settings.opensearch_url,
        "INDEX_PREFIX": settings.index_prefix,
    }
    command = [str(Path(sys.executable).with_name("consumers")), *arguments]
    return subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def test_new_index_carries_the_id_of_its_installation(pipeline: Pipeline) -> None:
    meta = pipeline.database.search.indices.get_mapping(index=pipeline.index_name)[pipeline.index_name]["mappings"]
    assert meta["_meta"]["installation"] == owner_of(pipeline)


@pytest.mark.parametrize("earlier_release", [False, True])
def test_second_database_gets_no_index_of_the_same_prefix(
    pipeline: Pipeline, second: Database, *, earlier_release: bool
) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    if earlier_release:
        set_owner(pipeline, None)
    before = state_of_cluster(pipeline)
    with pytest.raises(ForeignIndexError, match=pipeline.index_name):
        first_generation.ensure(second.settings)
    assert state_of_cluster(pipeline) == before
    assert pipeline.visible() == {consumer}


def test_every_command_of_a_second_database_is_refused(pipeline: Pipeline, second: Database, tmp_path: Path) -> None:
    before = state_of_cluster(pipeline)
    file = tmp_path / "customers.csv"
    file.write_text("externalId\nC-1\n")
    for arguments in (
        ("migrate",),
        ("index", "status"),
        ("index", "rebuild"),
        ("index", "verify"),
        ("index", "reindex", "--updated-since", "2024-01-01"),
        ("org", "create", "Shop"),
        ("import", "consumers", str(file), "--org", "Shop"),
        ("demo",),
    ):
        refused = run_command(second.settings, *arguments)
        assert refused.returncode != 0, arguments
        assert f"the index {pipeline.index_name} in OpenSearch belongs to another installation" in refused.stderr
        assert "set INDEX_PREFIX to" in refused.stderr
    assert state_of_cluster(pipeline) == before


def test_doctor_names_the_foreign_index_and_the_copied_database(pipeline: Pipeline, second: Database) -> None:
    result = run_command(second.settings, "doctor", "--only", "ownership")
    assert result.returncode == 1
    assert f"the index {pipeline.index_name} in OpenSearch belongs to another installation" in result.stdout
    assert "fault  ownership.copied_database" in result.stdout
    assert run_command(pipeline.database.settings, "doctor", "--only", "ownership").returncode == 0


@pytest.mark.parametrize("process", ["api", "worker", "beat"])
def test_process_of_a_second_database_does_not_start(second: Database, tmp_path: Path, process: str) -> None:
    service = Service(second, tmp_path)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(service, "_answers", lambda: True)
            service.start(process)
        wait_until(lambda: not service.running(process), timeout=60, what="the end")
    finally:
        service.close()
    assert "belongs to another installation" in service.log(process)


def test_index_of_an_earlier_release_is_claimed(pipeline: Pipeline) -> None:
    set_owner(pipeline, None)
    settings = pipeline.database.settings
    reconcile(pipeline.database.engine, pipeline.database.search, settings)
    meta = pipeline.database.search.indices.get_mapping(index=pipeline.index_name)[pipeline.index_name]["mappings"]
    assert meta["_meta"]["installation"] == owner_of(pipeline)
    assert meta["_meta"].keys() > {"installation"}
    set_owner(pipeline, None)
    first_generation.ensure(settings)
    test_new_index_carries_the_id_of_its_installation(pipeline)


def test_foreign_live_index_is_neither_written_nor_corrected(pipeline: Pipeline) -> None:
    set_owner(pipeline, FOREIGN)
    pipeline.insert_consumer()
    before = state_of_cluster(pipeline)
    with pytest.raises(ForeignIndexError, match=FOREIGN):
        pipeline.round()
    with pytest.raises(ForeignIndexError, match=FOREIGN):
        reconcile(pipeline.database.engine, pipeline.database.search, pipeline.database.settings)
    assert state_of_cluster(pipeline) == before
    assert pipeline.waiting() == 1
    assert pipeline.run("SELECT state, lost_at FROM generations") == [("live", None)]


def test_reads_of_a_foreign_index_are_refused(service: Service, account: Account) -> None:
    """The read alias leads to an index of another installation, as after `consumers migrate` of an earlier release."""
    account.live.post("/consumers", json={"fullName": "Ann Lee"}, headers={"Prefer": "wait=10"})
    database = service.database
    with new_pipeline(database) as pipeline, service.without("beat"):
        own = owner_of(pipeline)
        set_owner(pipeline, FOREIGN)
        try:
            wait_until(lambda: account.live.get("/consumers").status_code == 503, what="the refusal")
            assert account.live.post("/consumers", json={"fullName": "Bo"}).status_code == 201
            assert f"the index {pipeline.index_name} in OpenSearch belongs to another" in service.log("api")
        finally:
            set_owner(pipeline, own)
        wait_until(lambda: account.live.get("/consumers").status_code == 200, what="the index")
    account.settled()


def test_keys_of_two_installations_in_one_redis_are_apart(pipeline: Pipeline, second: Database) -> None:
    with Redis.from_url(pipeline.database.settings.redis_url) as client:
        client.set("live", "of another program")
        for settings in (pipeline.database.settings, second.settings):
            task_queue = queue.TaskQueue(settings)
            assert task_queue.send(queue.DRAIN)
            task_queue.close()
        names = [name for name in client.scan_iter() if name.endswith(b":live")]
        assert len(names) == 2
        assert all(client.llen(name) == 1 for name in names)
        assert client.get("live") == b"of another program"
        prefix = pipeline.database.settings.index_prefix
        assert all(name == b"live" or name.startswith(f"{prefix}:".encode()) for name in client.scan_iter())
