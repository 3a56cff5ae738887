"""OpenSearch's files are replaced by older files, as by a restored disk: detected, 503, and rebuilt."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra.local.servers import LocalServers
from tests.guarantees.conftest import crash
from tests.guarantees.index_comparison import assert_index_soon_equals_database
from tests.service import Account, Service, new_account, new_service
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def restored_service(own_servers: LocalServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with new_service(own_servers, tmp_path_factory.mktemp("service")) as running:
        yield running


def live_index(account: Account) -> str:
    """Return the name of the live index; empty while the index is lost."""
    with account.database.engine.connect() as connection:
        query = "SELECT index_name FROM generations WHERE state = 'live' AND lost_at IS NULL"
        return connection.execute(sa.text(query)).scalar_one_or_none() or ""


def read_status(account: Account) -> int:
    return account.live.get("/consumers").status_code


def settle_until_seen(account: Account) -> None:
    """Wait until everything is searchable and the indexer has recorded the index's operations."""
    account.settled()
    highest = account.database.search.indices.stats(index=live_index(account), level="shards")
    [shard] = highest["indices"][live_index(account)]["shards"]["0"]
    with account.database.engine.connect() as connection:
        recorded = sa.text("SELECT seen_seq_nos[1] FROM generations WHERE state = 'live'")

        def seen() -> bool:
            connection.rollback()
            return bool(connection.execute(recorded).scalar_one() == shard["seq_no"]["max_seq_no"])

        wait_until(seen, what="the operations to be recorded")


def test_older_files_are_detected_and_the_index_is_rebuilt(
    own_servers: LocalServers, restored_service: Service, tmp_path: Path
) -> None:
    opensearch, copy = own_servers.opensearch, tmp_path / "copy"
    with new_account(restored_service) as account:
        gone = account.live.post("/consumers", json={"fullName": "Gone"}).raise_for_status().json()["id"]
        settle_until_seen(account)
        first = live_index(account)
        opensearch.stop()
        shutil.copytree(opensearch.data, copy)
        opensearch.start()
        account.live.delete(f"/consumers/{gone}").raise_for_status()
        made = account.live.post("/consumers", json={"fullName": "Made"}).raise_for_status().json()["id"]
        settle_until_seen(account)
        opensearch.stop()
        shutil.rmtree(opensearch.data)
        shutil.copytree(copy, opensearch.data)
        opensearch.start()
        wait_until(lambda: not live_index(account), what="the loss to be detected")
        wait_until(lambda: read_status(account) == 503 or live_index(account), what="the error")
        wait_until(lambda: live_index(account) and read_status(account) == 200, 120, "the new index")
        assert live_index(account) != first
        assert [row["id"] for row in account.live.get("/consumers").json()["data"]] == [made]
        assert_index_soon_equals_database(account.database)


def test_crash_of_opensearch_is_not_taken_for_older_files(own_servers: LocalServers, restored_service: Service) -> None:
    with new_account(restored_service) as account:
        for number in range(20):
            account.live.post("/consumers", json={"fullName": f"No {number}"}).raise_for_status()
        settle_until_seen(account)
        first = live_index(account)
        crash(own_servers.opensearch)
        wait_until(lambda: read_status(account) == 200, what="the index")
        account.live.post("/consumers", json={"fullName": "After it"}).raise_for_status()
        settle_until_seen(account)
        assert live_index(account) == first
        assert_index_soon_equals_database(account.database)
