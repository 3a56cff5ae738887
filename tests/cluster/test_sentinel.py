"""Redis Sentinel: after the loss of the server, queue and rate limits use the promoted replica."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from infra.local.ports import LOOPBACK
from infra.local.servers import LocalServers
from infra.queue import key_prefix
from tests.deployment.sentinel import PASSWORD, running_sentinels
from tests.service import PatientService, new_account, new_database
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


def test_queue_and_limits_follow_the_server_that_sentinel_names(servers: LocalServers, tmp_path: Path) -> None:
    with new_database(servers) as database, running_sentinels(tmp_path) as sentinels, ExitStack() as stack:
        service = PatientService(database, tmp_path, {"REDIS_URL": sentinels.url})
        stack.callback(service.close)
        service.start_all()
        account = stack.enter_context(new_account(service, limits={"reads": 1000}))
        promoted = stack.enter_context(Redis(LOOPBACK, sentinels.replica.port, db=3, password=PASSWORD))

        def is_served() -> bool:
            response = account.live.get("/consumers")
            return "X-RateLimit-Limit" in response.headers

        wait_until(is_served, what="the rate limit")
        assert promoted.info("replication")["role"] == "slave"
        sentinels.primary.kill()
        made = account.live.post("/consumers", json={"fullName": "Ann Lee"}, headers={"Prefer": "wait=10"})
        assert (made.status_code, made.headers["Index-State"]) == (201, "searchable")
        wait_until(lambda: promoted.info("replication")["role"] == "master", timeout=30, what="the new primary")
        promoted.flushdb()
        wait_until(is_served, timeout=30, what="the rate limit")
        # The keys of marks and of the queue come from beat and from the workers.
        wait_until(lambda: any(b"indexer.drain" in name for name in promoted.scan_iter()), timeout=30, what="a wake-up")
        prefix = key_prefix(database.settings).encode()
        assert [name for name in promoted.scan_iter() if not name.startswith(prefix)] == []
        wait_until(lambda: "worker_silent" not in service.log("beat").rpartition("worker_recovered")[2], what="worker")
