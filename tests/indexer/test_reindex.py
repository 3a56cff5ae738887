"""`consumers index reindex`: exactly the chosen consumers are written again."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from indexer.verify import reindex
from indexer.verify.runs import Runner
from infra.operations.reindex import ReindexScope, request_reindex
from tests.cli import CommandResult, ConsumersCommand, consumers_command
from tests.guarantees.index_comparison import assert_index_equals_database
from tests.indexer.conftest import Pipeline


@contextmanager
def worker(pipeline: Pipeline) -> Iterator[None]:
    """Run a worker of verification runs in the background."""
    stop, runner = threading.Event(), Runner.open(pipeline.database.settings)

    def run() -> None:
        while not stop.wait(0.05):
            runner.work(1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        runner.engine.dispose()
        runner.client.close()


@pytest.fixture
def consumers(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[ConsumersCommand]:
    with worker(pipeline):
        yield consumers_command(pipeline.database, monkeypatch, capsys)


def delete_documents(pipeline: Pipeline, *ids: str) -> None:
    for name in ids:
        pipeline.writer.delete(index=pipeline.index_name, id=name, params={"refresh": "true"})


def last_json(result: CommandResult) -> Any:
    """Return the JSON in the last line; lines before are the worker's log."""
    return json.loads(result.out.splitlines()[-1])


def queued_rows(pipeline: Pipeline) -> list[str]:
    return sorted(name for (name,) in pipeline.run("SELECT consumer_id FROM outbox WHERE lane = 'bulk'"))


def queued_ids(pipeline: Pipeline) -> set[str]:
    return {name for (name,) in pipeline.run("SELECT consumer_id FROM outbox WHERE lane = 'bulk'")}


def test_lost_document_is_written_again(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    lost, other = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.drain()
    delete_documents(pipeline, lost)
    assert "1 consumer will be written again" in consumers("index", "reindex", "--id", lost).out
    assert queued_ids(pipeline) == {lost}
    pipeline.drain()
    assert pipeline.visible() == {lost, other}
    assert_index_equals_database(pipeline.database)


def test_environment_is_reindexed_in_several_transactions(
    pipeline: Pipeline, consumers: ConsumersCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindex, "PAGE_ROWS", 3)
    ids = {pipeline.insert_consumer() for _ in range(9)}
    pipeline.drain()
    output = last_json(consumers("index", "reindex", "--environment", "Shop:live", "--json"))
    assert (output["kind"], output["state"], output["total"], output["compared"]) == ("reindex", "done", 9, 9)
    assert queued_rows(pipeline) == sorted(ids)


def test_conditions_are_combined_and_a_dry_run_only_counts(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    old, new, failed = pipeline.insert_consumer(), pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.run("ALTER TABLE consumers DISABLE TRIGGER USER")
    pipeline.run("UPDATE consumers SET updated_at = '2020-01-01Z' WHERE id = :id", id=old)
    pipeline.run("ALTER TABLE consumers ENABLE TRIGGER USER")
    pipeline.run("UPDATE outbox SET attempts = 5, parked_at = now() WHERE consumer_id = :id", id=failed)
    pipeline.drain()
    choices = {
        ("--updated-since", "2021-01-01"): 2,
        ("--updated-since", "2021-01-01", "--id", old): 0,
        ("--failed-since", "2021-01-01T00:00:00"): 1,
        ("--id", old, "--id", new): 2,
        ("--environment", "Shop:live"): 3,
    }
    for options, expected in choices.items():
        output = last_json(consumers("index", "reindex", *options, "--dry-run", "--json"))
        assert output == {"consumers": expected, "isDryRun": True}, options
    assert queued_ids(pipeline) == set()


def test_reindex_resolves_a_parked_change(pipeline: Pipeline, consumers: ConsumersCommand) -> None:
    failed = pipeline.insert_consumer()
    pipeline.run("UPDATE outbox SET attempts = 5, parked_at = now()")
    consumers("index", "reindex", "--failed-since", "2021-01-01")
    pipeline.drain()
    assert pipeline.visible() == {failed}
    assert pipeline.waiting() == 0


@pytest.fixture
def mixed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Indexed consumers by a mark in their metadata; more of each mark than a page holds."""
    monkeypatch.setattr(reindex, "PAGE_ROWS", 3)
    insert: Any = """
        INSERT INTO consumers (environment_id, metadata)
        SELECT :e, jsonb_build_object('mark', CASE WHEN n % 3 = 0 THEN 'odd' ELSE 'even' END)
        FROM generate_series(1, 20) n RETURNING metadata->>'mark', id"""
    made = pipeline.run(insert)
    gone = pipeline.run(insert)[-1][1]
    pipeline.run("DELETE FROM consumers WHERE id = :id", id=gone)
    pipeline.drain()
    left = [(mark, name) for mark, name in pipeline.run("SELECT metadata->>'mark', id FROM consumers ORDER BY id")]
    assert len(left) == len(made) * 2 - 1
    return {mark: [name for other, name in left if other == mark] for mark in ("odd", "even")}


def test_consumers_found_by_a_filter_are_reindexed(
    pipeline: Pipeline, consumers: ConsumersCommand, mixed: dict[str, list[str]]
) -> None:
    options = ("--environment", "Shop:live", "--filter", "metadata.mark:ODD")
    odd = mixed["odd"]
    output = last_json(consumers("index", "reindex", *options, "--dry-run", "--json"))
    assert output == {"consumers": len(odd), "isDryRun": True}
    assert not queued_ids(pipeline)
    output = last_json(consumers("index", "reindex", *options, "--json"))
    assert (output["total"], output["compared"], output["scope"]) == (len(odd), len(odd), {"hasFilter": True})
    assert queued_rows(pipeline) == odd
    # The text may hold personal data, so a finished run does not keep the text.
    [(stored,)] = pipeline.run("SELECT scope::text FROM verifications WHERE kind = 'reindex'")
    assert "hasFilter" in stored
    assert "ODD" not in stored


def test_filter_is_combined_with_other_conditions(
    pipeline: Pipeline, consumers: ConsumersCommand, mixed: dict[str, list[str]]
) -> None:
    pipeline.run("ALTER TABLE consumers DISABLE TRIGGER USER")
    pipeline.run("UPDATE consumers SET updated_at = '2020-01-01Z' WHERE id = :id", id=mixed["odd"][0])
    pipeline.run("ALTER TABLE consumers ENABLE TRIGGER USER")
    pipeline.run("""
        INSERT INTO outbox (environment_id, consumer_id, version, lane)
        SELECT :e, id, version, 'live' FROM consumers""")
    pipeline.drain()
    pipeline.run("UPDATE consumers SET full_name = 'x' WHERE id = :id", id=mixed["odd"][1])
    pipeline.run("UPDATE outbox SET attempts = 1, parked_at = now()")
    options = ("--environment", "Shop:live", "--filter", "metadata.mark:odd")
    choices = {
        ("--id", mixed["odd"][0], "--id", mixed["even"][0]): mixed["odd"][:1],
        ("--updated-since", "2021-01-01"): mixed["odd"][1:],
        ("--failed-since", "2021-01-01"): mixed["odd"][1:2],
    }
    for conditions, expected in choices.items():
        output = last_json(consumers("index", "reindex", *options, *conditions, "--dry-run", "--json"))
        assert output["consumers"] == len(expected), conditions
        consumers("index", "reindex", *options, *conditions)
        assert queued_rows(pipeline) == expected, conditions
        pipeline.run("DELETE FROM outbox WHERE lane = 'bulk'")


def test_killed_reindex_resumes_and_appends_each_consumer_once(
    pipeline: Pipeline, mixed: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Runner.open(pipeline.database.settings)
    with pipeline.database.engine.begin() as connection:
        request_reindex(connection, ReindexScope(environment_id=pipeline.environment))
    pages, append = [0], reindex.append

    def append_until_killed(*arguments: Any) -> int:
        pages[0] += 1
        appended = append(*arguments)
        if pages[0] == 4:
            raise KeyboardInterrupt
        return appended

    monkeypatch.setattr(reindex, "append", append_until_killed)
    with pytest.raises(KeyboardInterrupt):
        runner.work(60)
    assert len(queued_rows(pipeline)) == 9
    assert not runner.work(60)
    pipeline.run("UPDATE verifications SET heartbeat_at = now() - interval '1 minute'")
    assert runner.work(60)
    assert queued_rows(pipeline) == sorted(mixed["odd"] + mixed["even"])
    assert pipeline.run("SELECT state, total, compared FROM verifications") == [("done", 39, 39)]
    runner.engine.dispose()
    runner.client.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "to write all of them, use a rebuild"),
        (("--filter", "email:*"), "a filter needs an environment"),
        (("--environment", "Shop:live", "--filter", "colour:red"), "Unknown field"),
        (("--environment", "Nobody:live"), "there is no organization"),
    ],
)
def test_invalid_reindex_options_are_refused(
    consumers: ConsumersCommand, options: tuple[str, ...], message: str
) -> None:
    result = consumers("index", "reindex", *options)
    assert result.code == 2
    # The message may be wrapped, inside a frame.
    assert message in " ".join(result.err.replace("│", " ").split())
