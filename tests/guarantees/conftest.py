"""Databases that the tests of a file share, drained by the test alone, and the whole service on servers of its own."""

from collections.abc import Iterator

import pytest

from infra.local.servers import LocalServers
from tests.indexer.conftest import Pipeline, new_pipeline
from tests.service import new_database


@pytest.fixture(scope="module")
def drained_here(servers: LocalServers) -> Iterator[Pipeline]:
    """A pipeline that only the tests of this file drain."""
    with new_database(servers) as database, new_pipeline(database) as pipeline:
        yield pipeline
