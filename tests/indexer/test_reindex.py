"""`consumers index reindex`: what is chosen is written again, and nothing else."""

import json

import pytest

from infra import reindex
from tests.commands import Consumers, commands
from tests.guarantees.agreement import assert_agreement
from tests.indexer.conftest import Pipeline


@pytest.fixture
def consumers(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Consumers:
    return commands(pipeline.database, monkeypatch, capsys)


def lose(pipeline: Pipeline, *ids: str) -> None:
    for name in ids:
        pipeline.writer.delete(index=pipeline.index_name, id=name, params={"refresh": "true"})


def queued(pipeline: Pipeline) -> set[str]:
    return {name for (name,) in pipeline.run("SELECT consumer_id FROM outbox WHERE lane = 'bulk'")}


def test_lost_document_is_written_again(pipeline: Pipeline, consumers: Consumers) -> None:
    lost, other = pipeline.consumer(), pipeline.consumer()
    pipeline.drain()
    lose(pipeline, lost)
    assert consumers("index", "reindex", "--id", lost).out == "1 consumer will be written again.\n"
    assert queued(pipeline) == {lost}
    pipeline.drain()
    assert pipeline.visible() == {lost, other}
    assert_agreement(pipeline.database)


def test_all_of_an_environment_are_found_in_many_transactions(
    pipeline: Pipeline, consumers: Consumers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reindex, "ROWS", 3)
    ids = {pipeline.consumer() for _ in range(9)}
    pipeline.drain()
    assert json.loads(consumers("index", "reindex", "--environment", "Shop:live", "--json").out)["consumers"] == 9
    assert queued(pipeline) == ids


def test_choices_hold_together_and_a_dry_run_only_counts(pipeline: Pipeline, consumers: Consumers) -> None:
    old, new, failed = pipeline.consumer(), pipeline.consumer(), pipeline.consumer()
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
        said = json.loads(consumers("index", "reindex", *options, "--dry-run", "--json").out)
        assert said == {"consumers": expected, "isDryRun": True}, options
    assert queued(pipeline) == set()


def test_change_that_was_given_up_is_done_with_once_its_consumer_is_written(
    pipeline: Pipeline, consumers: Consumers
) -> None:
    failed = pipeline.consumer()
    pipeline.run("UPDATE outbox SET attempts = 5, parked_at = now()")
    consumers("index", "reindex", "--failed-since", "2021-01-01")
    pipeline.drain()
    assert pipeline.visible() == {failed}
    assert pipeline.waiting() == 0


def test_everything_is_for_a_rebuild(consumers: Consumers) -> None:
    said = consumers("index", "reindex")
    assert said.code == 2
    assert "consumers index rebuild" in said.err
