"""OpenSearch's files are replaced by older ones, as by whoever restores a disk: noticed, 503, and refilled."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from infra.local.servers import THROWAWAY, LocalServers
from tests.guarantees.conftest import crash
from tests.guarantees.index_comparison import assert_agreement_soon
from tests.service import Account, Service, new_account, new_service
from tests.waiting import wait_until


@pytest.fixture
def servers_to_restore(tmp_path: Path) -> Iterator[LocalServers]:
    with LocalServers(tmp_path / "servers", THROWAWAY, environ={}) as running:
        yield running


@pytest.fixture
def restored_service(servers_to_restore: LocalServers, tmp_path: Path) -> Iterator[Service]:
    folder = tmp_path / "service"
    folder.mkdir()
    with new_service(servers_to_restore, folder) as running:
        yield running


def live(account: Account) -> str:
    """The name of the index that is read; empty while that is lost."""
    with account.database.engine.connect() as connection:
        found = "SELECT index_name FROM generations WHERE state = 'live' AND lost_at IS NULL"
        return connection.execute(sa.text(found)).scalar_one_or_none() or ""


def reads(account: Account) -> int:
    return account.live.get("/consumers").status_code


def settled_and_seen(account: Account) -> None:
    """Everything is searchable, and the last look at the index was after that."""
    account.settled()
    highest = account.database.search.indices.stats(index=live(account), level="shards")
    [shard] = highest["indices"][live(account)]["shards"]["0"]
    with account.database.engine.connect() as connection:
        known = sa.text("SELECT seen_seq_no FROM generations WHERE state = 'live'")

        def seen() -> bool:
            connection.rollback()
            return bool(connection.execute(known).scalar_one() == shard["seq_no"]["max_seq_no"])

        wait_until(seen, what="the look at the index")


def test_older_files_of_opensearch_are_noticed_and_the_index_is_refilled(
    servers_to_restore: LocalServers, restored_service: Service, tmp_path: Path
) -> None:
    opensearch, copy = servers_to_restore.opensearch, tmp_path / "copy"
    with new_account(restored_service) as account:
        gone = account.live.post("/consumers", json={"fullName": "Gone"}).raise_for_status().json()["id"]
        settled_and_seen(account)
        first = live(account)
        opensearch.stop()
        shutil.copytree(opensearch.data, copy)
        opensearch.start()
        account.live.delete(f"/consumers/{gone}").raise_for_status()
        made = account.live.post("/consumers", json={"fullName": "Made"}).raise_for_status().json()["id"]
        settled_and_seen(account)
        opensearch.stop()
        shutil.rmtree(opensearch.data)
        shutil.copytree(copy, opensearch.data)
        opensearch.start()
        wait_until(lambda: not live(account), what="the loss to be noticed")
        wait_until(lambda: reads(account) == 503 or live(account), what="the error")
        wait_until(lambda: live(account) and reads(account) == 200, 120, "the new index")
        assert live(account) != first
        assert [row["id"] for row in account.live.get("/consumers").json()["data"]] == [made]
        assert_agreement_soon(account.database)


def test_crash_of_opensearch_is_not_taken_for_older_files(
    servers_to_restore: LocalServers, restored_service: Service
) -> None:
    with new_account(restored_service) as account:
        for number in range(20):
            account.live.post("/consumers", json={"fullName": f"No {number}"}).raise_for_status()
        settled_and_seen(account)
        first = live(account)
        crash(servers_to_restore.opensearch)
        wait_until(lambda: reads(account) == 200, what="the index")
        account.live.post("/consumers", json={"fullName": "After it"}).raise_for_status()
        settled_and_seen(account)
        assert live(account) == first
        assert_agreement_soon(account.database)
