"""`consumers index status` and `consumers index retry-parked`."""

import json
from typing import Any

import pytest
import redis

from indexer.drain import claims
from indexer.rebuild.lost_index import reconcile
from infra import queue
from infra.index import mapping, naming
from infra.operations import outbox
from infra.operations.status import PARKED_ROWS
from infra.operations.verify import request_run
from infra.settings import Settings
from tests.cli import ConsumersCommand, consumers_command
from tests.indexer.conftest import Pipeline
from tests.indexer.server_faults import store_unparsable_metadata

CLOSED = "127.0.0.1:9"


@pytest.fixture
def consumers(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> ConsumersCommand:
    return consumers_command(pipeline.database, monkeypatch, capsys)


def status(consumers: ConsumersCommand) -> Any:
    result = consumers("index", "status", "--json")
    assert (result.code, result.err) == (0, "")
    return json.loads(result.out)


def insert_with_external_id(pipeline: Pipeline, name: str) -> str:
    [(consumer,)] = pipeline.run(
        "INSERT INTO consumers (environment_id, external_id) VALUES (:e, :name) RETURNING id", name=name
    )
    return str(consumer)


def park(pipeline: Pipeline) -> None:
    """Run rounds until refused documents are parked."""
    for _ in range(claims.MAX_ATTEMPTS):
        pipeline.drain()
        pipeline.run("UPDATE outbox SET retry_at = now()")


def other_environment(pipeline: Pipeline) -> Pipeline:
    [(number,)] = pipeline.run(
        "INSERT INTO environments (organization_id, mode) SELECT id, 'test' FROM organizations RETURNING id"
    )
    return pipeline._replace(environment=number)


@pytest.fixture
def numeric_external_ids(pipeline: Pipeline) -> Pipeline:
    """An index whose mapping accepts only numbers as external ids; `repair_mapping` restores the mapping."""
    search, name = pipeline.database.search, pipeline.index_name
    properties = mapping.MAPPING["properties"] | {"externalId": {"type": "long"}}
    search.indices.delete(index=name)
    create_index(pipeline, properties)
    return pipeline


def create_index(pipeline: Pipeline, properties: dict[str, Any]) -> None:
    name, prefix = pipeline.index_name, pipeline.database.settings.index_prefix
    pipeline.database.search.indices.create(
        index=name,
        body={
            "settings": mapping.INDEX_SETTINGS,
            "mappings": mapping.MAPPING | {"properties": properties},
            "aliases": {
                naming.write_alias(name): {},
                naming.read_alias(prefix): {"filter": {"term": {"deleted": False}}},
            },
        },
    )


def repair_mapping(pipeline: Pipeline) -> None:
    pipeline.database.search.indices.delete(index=pipeline.index_name)
    create_index(pipeline, mapping.MAPPING["properties"])


def test_status_shows_generations_and_backlog(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    for _ in range(3):
        pipeline.insert_consumer()
    pipeline.round()
    pipeline.insert_consumer()
    content = status(consumers)
    [generation] = content["generations"]
    assert generation.pop("bytes") > 0
    assert generation.pop("liveAt")
    assert generation == {
        "indexName": pipeline.index_name,
        "state": "live",
        "documentVersion": mapping.DOCUMENT_VERSION,
        "shards": 1,
        "isAsDeclared": True,
        "index": "open",
        "documents": 3,
        "aliases": ["read", "write"],
        "keepUntil": None,
        "lostAt": None,
        "position": -1,
        "misses": 0,
    }
    assert (content["rebuild"], content["running"]) == (None, [])
    live, bulk = content["waiting"]
    assert (live["lane"], live["waiting"], live["parked"]) == ("live", 1, 0)
    assert (bulk["lane"], bulk["waiting"], bulk["oldestSeconds"]) == ("bulk", 0, 0)
    assert [(lane["lane"], lane["changes"]) for lane in content["done"]] == [("live", 3), ("bulk", 0)]
    assert [(worker["lane"], worker["rounds"], worker["changes"]) for worker in content["workers"]] == [("live", 1, 3)]
    parts = [{"part": part, "silentSeconds": None, "processes": 0} for part in ("live", "bulk", "clock")]
    assert content["parts"] == parts
    assert (content["search"], content["parked"]) == ("ok", [])
    table = consumers("index", "status").out
    assert pipeline.index_name in table
    assert "as declared" in table


def test_status_shows_requested_runs_and_seen_position(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    pipeline.insert_consumer()
    pipeline.drain()
    reconcile(pipeline.database.engine, pipeline.database.search, pipeline.database.settings)
    with pipeline.database.engine.begin() as connection:
        numbers = [request_run(connection, kind) for kind in ("verify", "repair")]
    pipeline.run("INSERT INTO verifications (kind) VALUES ('watch')")
    content = status(consumers)
    assert [(run["id"], run["state"]) for run in content["running"]] == [(number, "requested") for number in numbers]
    assert [generation["position"] for generation in content["generations"]] == [0]
    assert f"verify: run {numbers[0]} waits for a worker" in consumers("index", "status").out


@pytest.mark.parametrize("away", ["OPENSEARCH_URL", "REDIS_URL"])
def test_status_works_while_a_server_is_away(
    pipeline: Pipeline, consumers: ConsumersCommand, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    pipeline.insert_consumer()
    monkeypatch.setenv(away, f"{'redis' if away == 'REDIS_URL' else 'http'}://{CLOSED}")
    content = status(consumers)
    assert content["waiting"][0]["waiting"] == 1
    [generation] = content["generations"]
    assert generation["state"] == "live"
    unknown = away == "OPENSEARCH_URL"
    assert content["search"].startswith("unreachable: Connection") == unknown
    assert (generation["index"] is None) == unknown
    result = consumers("index", "status")
    assert (result.code, result.err) == (0, "")
    assert ("unreachable" in result.out) == unknown


@pytest.mark.parametrize(
    ("harm", "field", "expected"),
    [
        ("delete", "index", "missing"),
        ("close", "index", "close"),
        ("alias", "aliases", ["write"]),
        ("mapping", "isAsDeclared", False),
    ],
)
def test_status_shows_problems_of_the_index(
    pipeline: Pipeline, consumers: ConsumersCommand, harm: str, field: str, expected: object
) -> None:
    indices, name = pipeline.database.search.indices, pipeline.index_name
    {
        "delete": lambda: indices.delete(index=name),
        "close": lambda: indices.close(index=name),
        "alias": lambda: indices.delete_alias(
            index=name, name=naming.read_alias(pipeline.database.settings.index_prefix)
        ),
        "mapping": lambda: pipeline.run("UPDATE generations SET mapping_digest = 'another'"),
    }[harm]()
    [generation] = status(consumers)["generations"]
    assert generation[field] == expected
    assert ("differs: consumers index rebuild" in consumers("index", "status").out) == (harm == "mapping")


def test_parked_change_is_shown_in_one_harmless_line(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    consumer = pipeline.insert_consumer()
    store_unparsable_metadata(pipeline, consumer)
    pipeline.run("DELETE FROM outbox WHERE version < (SELECT version FROM consumers)")
    park(pipeline)
    [parked] = status(consumers)["parked"]
    assert (parked["consumerId"], parked["organization"], parked["mode"]) == (consumer, "Shop", "live")
    assert (parked["version"], parked["attempts"]) == (pipeline.version(consumer), claims.MAX_ATTEMPTS)
    assert parked["reason"].startswith("mapper_parsing_exception: ")
    pipeline.run("UPDATE outbox SET error = :error", error="first\nsecond \x1b[31m\u202e" + "x" * 500)
    [line] = [line for line in consumers("index", "status").out.splitlines() if line.startswith(consumer)]
    assert "Shop:live" in line
    assert "first second [31m xxx" in line
    assert "x" * 150 in line
    assert "x" * 201 not in line


def test_latest_parked_changes_are_shown_and_the_others_counted(
    pipeline: Pipeline, consumers: ConsumersCommand
) -> None:
    pipeline.run("INSERT INTO consumers (environment_id) SELECT :e FROM generate_series(1, :n)", n=PARKED_ROWS + 5)
    pipeline.run("UPDATE outbox SET parked_at = now() - seq * interval '1 minute', error = 'it'")
    content = status(consumers)
    latest = [row[0] for row in pipeline.run("SELECT consumer_id FROM outbox ORDER BY parked_at DESC")]
    assert [row["consumerId"] for row in content["parked"]] == latest[:PARKED_ROWS]
    assert content["waiting"][0]["parked"] == PARKED_ROWS + 5
    assert "5 more" in consumers("index", "status").out


def test_parked_change_is_indexed_by_a_retry_after_the_fix(
    numeric_external_ids: Pipeline, consumers: ConsumersCommand
) -> None:
    refused = insert_with_external_id(numeric_external_ids, "not a number")
    park(numeric_external_ids)
    assert numeric_external_ids.failures()[0][:2] == (claims.MAX_ATTEMPTS, True)
    repair_mapping(numeric_external_ids)
    numeric_external_ids.drain()
    assert numeric_external_ids.visible() == set()
    assert json.loads(consumers("index", "retry-parked", "--json").out) == {"retried": 1, "woken": True}
    assert numeric_external_ids.failures() == [(0, False, None)]
    numeric_external_ids.drain()
    assert numeric_external_ids.visible() == {refused}
    assert numeric_external_ids.waiting() == 0
    assert consumers("index", "retry-parked").out == "0 parked changes will be tried again.\n"


def test_retried_change_that_still_fails_is_parked_again(
    numeric_external_ids: Pipeline, consumers: ConsumersCommand
) -> None:
    insert_with_external_id(numeric_external_ids, "not a number")
    park(numeric_external_ids)
    consumers("index", "retry-parked")
    park(numeric_external_ids)
    assert numeric_external_ids.failures()[0][:2] == (claims.MAX_ATTEMPTS, True)


def test_retry_can_be_limited_to_environments_and_ids(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    other = other_environment(pipeline)
    mine, second, theirs = pipeline.insert_consumer(), pipeline.insert_consumer(), other.insert_consumer()
    choices = {
        ("--environment", "Shop:test"): {theirs},
        ("--environment", "Shop:live"): {mine, second},
        ("--id", mine, "--id", theirs): {mine, theirs},
        ("--environment", "Shop:live", "--id", mine, "--id", theirs): {mine},
        ("--id", "cons_unknown"): set(),
        (): {mine, second, theirs},
    }
    for options, expected in choices.items():
        pipeline.run("UPDATE outbox SET attempts = 5, retry_at = now(), parked_at = now(), error = 'it'")
        output = json.loads(consumers("index", "retry-parked", *options, "--json").out)
        retried_ids = {row[0] for row in pipeline.run("SELECT consumer_id FROM outbox WHERE parked_at IS NULL")}
        assert (retried_ids, output["retried"]) == (expected, len(expected)), options


@pytest.mark.parametrize(
    ("environment", "code", "problem"),
    [
        ("Shop", 2, "live or test"),
        ("Shop:staging", 2, "live or test"),
        (":live", 2, "name"),
        ("None:live", 1, "'None'"),
    ],
)
def test_unknown_environment_is_refused(
    pipeline: Pipeline, consumers: ConsumersCommand, environment: str, code: int, problem: str
) -> None:
    pipeline.insert_consumer()
    pipeline.run("UPDATE outbox SET parked_at = now()")
    result = consumers("index", "retry-parked", "--environment", environment)
    assert result.code == code
    assert problem in result.err
    assert pipeline.run("SELECT count(*) FROM outbox WHERE parked_at IS NULL") == [(0,)]


def test_retry_skips_a_change_locked_by_a_drain(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    consumer, _ = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.run("UPDATE outbox SET parked_at = now()")
    with pipeline.database.engine.begin() as connection:
        connection.exec_driver_sql("SELECT FROM outbox WHERE consumer_id = %s FOR UPDATE", (consumer,))
        assert json.loads(consumers("index", "retry-parked", "--json").out)["retried"] == 1


def test_retry_wakes_the_indexer_if_redis_is_up(
    pipeline: Pipeline,
    consumers: ConsumersCommand,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    queue_client: redis.Redis,
) -> None:
    pipeline.insert_consumer()
    pipeline.run("UPDATE outbox SET parked_at = now()")
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    assert json.loads(consumers("index", "retry-parked", "--json").out) == {"retried": 1, "woken": True}
    assert queue_client.llen(queue.key_prefix(settings) + queue.LIVE) == 1
    pipeline.run("UPDATE outbox SET parked_at = now()")
    monkeypatch.setenv("REDIS_URL", f"redis://{CLOSED}")
    assert json.loads(consumers("index", "retry-parked", "--json").out) == {"retried": 1, "woken": False}
    with pipeline.database.engine.connect() as connection:
        assert [lane.parked for lane in outbox.backlog(connection)] == [0, 0]
