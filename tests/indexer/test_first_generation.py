"""The first generation: created once, as declared, and never on the index of another database."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa
from opensearchpy.exceptions import ConnectionTimeout

from infra.index import indices, mapping, naming
from infra.operations import first_generation
from tests.indexer.conftest import Pipeline, owner_of
from tests.service import Service
from tests.waiting import wait_until


def leaves(properties: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping as OpenSearch shows mappings: without options with default values."""
    defaults = {"index_options": "positions", "search_analyzer": None}
    shown: dict[str, Any] = {}
    for name, value in properties.items():
        options = {key: option for key, option in value.items() if key not in {"fields", "properties"}}
        if options.get("type") == "object" and name == "row":
            options = {"type": "object", "enabled": options["enabled"]}
        options = {key: option for key, option in options.items() if defaults.get(key, ...) != option}
        shown[name] = options | ({"fields": leaves(value["fields"])} if "fields" in value else {})
    return shown


def test_live_mapping_is_strict_and_as_declared(pipeline: Pipeline) -> None:
    live = pipeline.database.search.indices.get_mapping(index=pipeline.index_name)[pipeline.index_name]["mappings"]
    assert live["dynamic"] == "strict"
    assert live["_meta"] == mapping.MAPPING["_meta"] | {"installation": owner_of(pipeline)}
    assert leaves(live["properties"]) == leaves(mapping.MAPPING["properties"])


def test_undeclared_field_is_refused(pipeline: Pipeline) -> None:
    assert pipeline.write_by_hand("x", 1, b'{"id": "x"}') == 200
    params = {"ignore": 400}
    response: Any = pipeline.writer.index(index=pipeline.index_name, id="y", body=b'{"unknown": 1}', params=params)
    assert b"strict_dynamic_mapping_exception" in response


def test_concurrent_starts_create_one_generation(pipeline: Pipeline) -> None:
    pipeline.run("DELETE FROM generations")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(first_generation.ensure, [pipeline.database.settings] * 6))
    rows = pipeline.run("SELECT index_name, state FROM generations")
    assert len(rows) == 1
    alias = naming.read_alias(pipeline.database.settings.index_prefix)
    assert list(pipeline.database.search.indices.get_alias(name=alias)) == [rows[0][0]]


def test_index_of_another_database_is_not_used(pipeline: Pipeline) -> None:
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    pipeline.run("DELETE FROM generations")
    first_generation.ensure(pipeline.database.settings)
    [(index,)] = pipeline.run("SELECT index_name FROM generations")
    assert index == naming.index_name(pipeline.database.settings.index_prefix, 2)
    assert pipeline.visible() == set()
    pipeline.rename(consumer, "Here")
    pipeline.drain()
    assert pipeline.visible() == {consumer}
    with pipeline.database.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM outbox")).scalar_one() == 0


def test_index_of_a_failed_start_is_deleted(pipeline: Pipeline) -> None:
    pipeline.run("DELETE FROM generations")
    first_generation.ensure(pipeline.database.settings)
    [(index,)] = pipeline.run("SELECT index_name FROM generations")
    names = pipeline.database.search.indices.get(index=f"{pipeline.database.settings.index_prefix}-0*")
    assert list(names) == [index]


def test_index_that_is_created_late_is_used(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy cluster creates the index after the request has timed out."""
    create = indices.create

    def time_out(*arguments: Any, **options: Any) -> None:
        Thread(target=create, args=arguments, kwargs=options).start()
        raise ConnectionTimeout("TIMEOUT", "a busy cluster", {})

    monkeypatch.setattr(indices, "create", time_out)
    pipeline.run("DELETE FROM generations")
    first_generation.ensure(pipeline.database.settings)
    [(index, state)] = pipeline.run("SELECT index_name, state FROM generations")
    assert (index, state) == (naming.index_name(pipeline.database.settings.index_prefix, 2), "live")
    consumer = pipeline.insert_consumer()
    pipeline.drain()
    assert pipeline.visible() == {consumer}


def test_answers_that_come_too_late_are_asked_for_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of a busy machine: each call times out once."""
    late = {name: getattr(indices, name) for name in ("existing", "switch_reads")}

    def patch(name: str) -> None:
        def time_out(*_: Any) -> None:
            monkeypatch.setattr(indices, name, late[name])
            raise ConnectionTimeout("TIMEOUT", "a busy cluster", {})

        monkeypatch.setattr(indices, name, time_out)

    for name in late:
        patch(name)
    pipeline.run("DELETE FROM generations")
    assert first_generation.ensure(pipeline.database.settings)
    [(index, state)] = pipeline.run("SELECT index_name, state FROM generations")
    assert state == "live"
    assert list(pipeline.database.search.indices.get(index=f"{pipeline.database.settings.index_prefix}-0*")) == [index]


def test_different_mapping_is_reported_and_not_rebuilt(pipeline: Pipeline) -> None:
    assert first_generation.ensure(pipeline.database.settings)
    pipeline.run("UPDATE generations SET mapping_digest = 'another'")
    assert not first_generation.ensure(pipeline.database.settings)
    assert pipeline.run("SELECT count(*) FROM generations") == [(1,)]


@pytest.mark.parametrize("process", ["api", "worker", "beat"])
def test_start_logs_advice_if_the_mapping_or_the_schema_differs(
    pipeline: Pipeline, tmp_path: Path, process: str
) -> None:
    pipeline.run("UPDATE generations SET mapping_digest = 'of older code'")
    pipeline.run("UPDATE alembic_version SET version_num = '9999'")
    service = Service(pipeline.database, tmp_path)
    try:
        service.start(process)
        wait_until(lambda: '"advice":"consumers index rebuild"' in service.log(process), what="the advice")
        [schema] = [line for line in service.log(process).splitlines() if "schema_of_later_release" in line]
    finally:
        service.close()
    assert '"revision":"9999"' in schema
    assert '"level":"warning"' in schema
    assert pipeline.run("SELECT count(*) FROM generations") == [(1,)]
