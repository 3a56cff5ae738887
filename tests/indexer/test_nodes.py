"""Nodes of OpenSearch that hang: requests go to the next node, and no change is blamed or delayed for long.

The nodes are proxies in front of one server, because only their connections matter here.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from litestar import Request
from litestar.datastructures import State
from opensearchpy import AsyncOpenSearch, OpenSearch
from opensearchpy.exceptions import ConnectionError as NoAnswer

from api.auth import Caller
from api.budget import Budget
from api.consumers import reads
from api.index_owner import IndexOwner
from api.request import AnyRequest
from api.search import Index
from api.search import search as search_as_api
from infra.database.engine import open_async_engine
from infra.index import transports
from infra.index.client import TIMEOUT_SECONDS, open_reader, open_writer
from infra.index.transports import CONFIRMED, AsyncNodes, SyncNodes
from infra.settings import Settings
from tests.indexer.conftest import Pipeline
from tests.indexer.proxy import Proxy
from tests.seals import fixed_seal

READS = 12
LONG_SECONDS = 60.0


@pytest.fixture
def proxies(pipeline: Pipeline) -> Iterator[list[Proxy]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Proxy(pipeline.database.settings.opensearch_url)) for _ in range(3)]


def at(pipeline: Pipeline, proxies: Sequence[Proxy]) -> Settings:
    addresses = ",".join(proxy.address for proxy in proxies)
    return msgspec.structs.replace(pipeline.database.settings, opensearch_url=addresses)


def with_reader(settings: Settings, use: Callable[[AsyncOpenSearch, AsyncNodes], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_reader(settings) as client:
            nodes: object = client.transport
            assert isinstance(nodes, AsyncNodes)
            await use(client, nodes)

    asyncio.run(run())


async def search(client: AsyncOpenSearch, pipeline: Pipeline) -> None:
    await client.search(index=pipeline.index_name, body={"size": 0})


async def until_left_out(nodes: AsyncNodes, number: int) -> None:
    async with asyncio.timeout(30):
        while nodes.left_out != number:  # noqa: ASYNC110 (the client has no event for it)
            await asyncio.sleep(0.02)


async def until_probed(nodes: AsyncNodes) -> None:
    async with asyncio.timeout(30):
        while not all(node.view for node in nodes.all):  # noqa: ASYNC110 (the client has no event for it)
            await asyncio.sleep(0.02)


def freeze(proxy: Proxy) -> None:
    proxy.freeze()


def close(proxy: Proxy) -> None:
    proxy.close()


@pytest.mark.parametrize("fault", [freeze, close])
def test_node_without_answers_fails_no_read_and_is_left_out(
    pipeline: Pipeline, proxies: list[Proxy], fault: Callable[[Proxy], None]
) -> None:
    async def use(client: AsyncOpenSearch, nodes: AsyncNodes) -> None:
        for _ in proxies:
            await search(client, pipeline)
        fault(proxies[0])
        for _ in range(READS):
            await search(client, pipeline)
        await until_left_out(nodes, 1)

    with_reader(at(pipeline, proxies), use)
    proxies[0].thaw()


def test_node_is_used_again_after_its_return(pipeline: Pipeline, proxies: list[Proxy]) -> None:
    async def use(client: AsyncOpenSearch, nodes: AsyncNodes) -> None:
        proxies[0].freeze()
        await search(client, pipeline)
        await until_left_out(nodes, 1)
        proxies[0].thaw()
        await until_left_out(nodes, 0)

    with_reader(at(pipeline, proxies), use)


def test_reads_fail_at_once_while_no_node_answers(pipeline: Pipeline, proxies: list[Proxy]) -> None:
    async def use(client: AsyncOpenSearch, nodes: AsyncNodes) -> None:
        await search(client, pipeline)
        proxies[0].freeze()
        with pytest.raises(NoAnswer):
            await search(client, pipeline)
        await until_left_out(nodes, 1)
        with pytest.raises(NoAnswer, match="no node answers") as failure:
            await search(client, pipeline)
        assert nodes.repeats_until(failure.value) == 0
        proxies[0].thaw()
        await until_left_out(nodes, 0)
        await search(client, pipeline)

    with_reader(at(pipeline, proxies[:1]), use)


def test_views_of_the_nodes_can_be_compared(pipeline: Pipeline, proxies: list[Proxy]) -> None:
    async def use(client: AsyncOpenSearch, nodes: AsyncNodes) -> None:
        await search(client, pipeline)
        await until_probed(nodes)
        assert all(node.view and node.view.version > 0 for node in nodes.all)

    with_reader(at(pipeline, proxies), use)


def test_slow_search_does_not_take_its_node_out_of_use(pipeline: Pipeline, proxies: list[Proxy]) -> None:
    async def use(client: AsyncOpenSearch, nodes: AsyncNodes) -> None:
        with pytest.raises(NoAnswer):
            await client.search(index=pipeline.index_name, body={"size": 0}, params={"request_timeout": 0.5})
        await search(client, pipeline)
        assert nodes.left_out == 0

    proxies[0].hanging_connections = 1
    with_reader(at(pipeline, proxies[:1]), use)


async def confirmed_search(client: AsyncOpenSearch, pipeline: Pipeline) -> None:
    await client.search(index=pipeline.index_name, body={"size": 0}, params={CONFIRMED: True})


@pytest.mark.parametrize("number", [1, 3])
def test_confirmed_read_is_answered_by_members_of_the_cluster(
    pipeline: Pipeline, proxies: list[Proxy], number: int
) -> None:
    async def use(client: AsyncOpenSearch, nodes: AsyncNodes) -> None:
        for _ in proxies:
            await confirmed_search(client, pipeline)
        for node in nodes.all[:number]:
            node.id = "removed"
        if number == len(proxies):
            with pytest.raises(NoAnswer, match=r"does not belong to the cluster|no node answers"):
                await confirmed_search(client, pipeline)
        else:
            for _ in proxies:
                await confirmed_search(client, pipeline)
            await until_left_out(nodes, number)

    with_reader(at(pipeline, proxies), use)


def index_of_request(pipeline: Pipeline, client: AsyncOpenSearch, headers: Sequence[tuple[bytes, bytes]]) -> Index:
    """Return the index for the searches of a request, as the API does."""
    settings = pipeline.database.settings
    budget = Budget(open_async_engine(settings), searches=1, connections=1)
    state = {"settings": settings, "search": client, "budget": budget, "index_owner": IndexOwner(settings, client)}
    request: AnyRequest = Request({"type": "http", "headers": headers})  # type: ignore[arg-type]  # a part of a scope
    key: dict[str, Any] = {
        "key_id": "key",
        "mode": "live",
        "organization_id": "org",
        "scopes": frozenset(),
        "seal": fixed_seal(),
    }
    caller = Caller(environment_id=pipeline.environment, **key)
    return reads.index_of(request, State(state), caller)


def test_searches_of_a_request_with_a_token_are_confirmed(
    pipeline: Pipeline, proxies: list[Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "ELECTION_SECONDS", 0)
    body = {"query": {"match_all": {}}, "size": 0}

    async def use(client: AsyncOpenSearch, nodes: AsyncNodes) -> None:
        await search_as_api(index_of_request(pipeline, client, []), body)
        with_token = index_of_request(pipeline, client, [(b"consistency-token", b"token")])
        await search_as_api(with_token, body)
        for node in nodes.all:
            node.id = "removed"
        with pytest.raises(NoAnswer, match=r"does not belong to the cluster|no node answers"):
            await search_as_api(with_token, body)

    with_reader(at(pipeline, proxies), use)


def test_search_waits_while_nodes_without_a_searchable_copy_answer(
    pipeline: Pipeline, proxies: list[Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transports, "ELECTION_SECONDS", LONG_SECONDS)
    body = {"query": {"match_all": {}}, "size": 0}

    async def use(client: AsyncOpenSearch, nodes: AsyncNodes) -> None:
        index = index_of_request(pipeline, client, [])._replace(ends_at=time.monotonic() + LONG_SECONDS)
        await search_as_api(index, body)
        await until_probed(nodes)
        for proxy in proxies:
            proxy.refused = b"/_search"
        with pytest.raises(NoAnswer) as failure:
            await search(client, pipeline)
        assert nodes.repeats_until(failure.value) > time.monotonic()
        searching = asyncio.create_task(search_as_api(index, body))
        for _ in proxies:
            with pytest.raises(NoAnswer):
                await search(client, pipeline)
        assert not searching.done()
        for proxy in proxies:
            proxy.refused = None
        await searching
        monkeypatch.setattr(transports, "ELECTION_SECONDS", 0)
        for proxy in proxies:
            proxy.refused = b"/_search"
        with pytest.raises(NoAnswer):
            await search_as_api(index, body)

    with_reader(at(pipeline, proxies), use)


def test_drain_passes_over_a_frozen_node(pipeline: Pipeline, proxies: list[Proxy]) -> None:
    writer = open_writer(at(pipeline, proxies))
    through = pipeline._replace(writer=writer)
    consumers = {through.insert_consumer() for _ in proxies}
    through.drain()
    proxies[1].freeze()
    for consumer in consumers:
        through.rename(consumer, "Changed")
        through.drain()
    assert pipeline.waiting() == 0
    assert {pipeline.document(consumer)["fullName"] for consumer in consumers} == {"Changed"}
    proxies[1].thaw()
    writer.close()


def test_request_leaves_a_node_that_a_probe_takes_out_of_use(pipeline: Pipeline, proxies: list[Proxy]) -> None:
    proxies[0].freeze()
    # Without the probe, the attempt at the first node takes all the time of the request.
    client = OpenSearch(
        [proxy.address for proxy in proxies[:2]],
        transport_class=SyncNodes,  # type: ignore[arg-type]  # has the methods that the client calls
        timeout=TIMEOUT_SECONDS,
        attempt_seconds=TIMEOUT_SECONDS,
    )
    assert client.count(index=pipeline.index_name)["count"] == 0
    proxies[0].thaw()
    client.close()


def test_search_leaves_a_node_that_a_probe_takes_out_of_use(pipeline: Pipeline, proxies: list[Proxy]) -> None:
    async def use() -> None:
        # Without the probe, the attempt at the first node takes all the time of the request.
        async with AsyncOpenSearch(
            [proxy.address for proxy in proxies[:2]],
            transport_class=AsyncNodes,  # type: ignore[arg-type]  # has the methods that the client calls
            timeout=TIMEOUT_SECONDS,
            attempt_seconds=TIMEOUT_SECONDS,
        ) as client:
            await search(client, pipeline)

    proxies[0].freeze()
    asyncio.run(use())
    proxies[0].thaw()


def test_document_alone_is_not_blamed_for_a_timeout(pipeline: Pipeline, proxies: list[Proxy]) -> None:
    changed, other = pipeline.insert_consumer(), pipeline.insert_consumer()
    pipeline.drain()
    writer = open_writer(at(pipeline, proxies[:1]))
    through = pipeline._replace(writer=writer)
    pipeline.rename(changed, "Changed")
    proxies[0].hanging_connections = 1
    with pytest.raises(NoAnswer):
        through.round(rows=1)
    assert [row[:2] for row in pipeline.failures()] == [(0, False)]
    through.drain()
    assert pipeline.visible() == {changed, other}
    assert pipeline.document(changed)["fullName"] == "Changed"
    writer.close()
