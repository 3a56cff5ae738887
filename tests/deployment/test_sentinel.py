"""Redis Sentinel names the server for the queue; Redis Cluster is refused."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from infra import queue
from infra.local import ports
from infra.local.ports import LOOPBACK
from infra.redis_client import refuse_cluster
from infra.settings import SettingsError, load
from tests.deployment.sentinel import PASSWORD, Sentinels, ValkeyServer, running_sentinels
from tests.service import Database


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with running_sentinels(tmp_path) as running:
        yield running


def test_messages_reach_the_server_that_the_second_sentinel_names(sentinels: Sentinels, quiet: Database) -> None:
    settings = msgspec.structs.replace(quiet.settings, redis_url=sentinels.url)
    sentinels.watchers[0].kill()
    task_queue = queue.TaskQueue(settings)
    assert task_queue.send(queue.DRAIN)
    task_queue.close()
    prefix = queue.key_prefix(settings)
    with Redis(LOOPBACK, sentinels.primary.port, db=3, password=PASSWORD) as client:
        assert client.llen(prefix + queue.LIVE) == 1
    with queue.celery(settings) as app, app.connection_for_read() as connection:
        received = connection.SimpleQueue(queue.LIVE).get(timeout=5)
        assert received.headers["task"] == queue.DRAIN
        received.ack()


def test_server_in_cluster_mode_is_refused(tmp_path: Path) -> None:
    settings = {"cluster-enabled": "yes", "cluster-port": str(ports.pick()), "requirepass": PASSWORD}
    node = ValkeyServer("node", tmp_path, settings)
    node.start()
    try:
        chosen = load({"DATABASE_URL": "postgresql://x", "OPENSEARCH_URL": "http://x", "REDIS_URL": node.url})
        with pytest.raises(SettingsError, match="the server runs in cluster mode, and Redis Cluster is not supported"):
            refuse_cluster(chosen)
    finally:
        node.stop()
