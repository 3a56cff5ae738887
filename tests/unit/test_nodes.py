"""Which failed requests go to the next node, and which probes count as answers."""

import pytest
from opensearchpy.exceptions import AuthorizationException, ConnectionTimeout, TransportError
from opensearchpy.exceptions import ConnectionError as NoAnswer

from infra.index.nodes import is_answer, is_node_at_fault, may_repeat

TIMEOUT = ConnectionTimeout("TIMEOUT", "", None)
REFUSED = NoAnswer("N/A", "", None)
WITHOUT_MANAGER = TransportError(503, "cluster_block_exception", {})
WITHOUT_SHARD = TransportError(503, "search_phase_execution_exception", {})
OVERLOADED = TransportError(429, "circuit_breaking_exception", {})
FORBIDDEN = AuthorizationException(403, "security_exception", {})


@pytest.mark.parametrize(
    ("error", "method", "url", "repeated"),
    [
        (TIMEOUT, "POST", "/consumers-read/_search", True),
        (TIMEOUT, "POST", "/consumers-000001-write/_bulk", True),
        (TIMEOUT, "POST", "/consumers-000001/_refresh", True),
        (TIMEOUT, "GET", "/_cat/indices", True),
        (TIMEOUT, "POST", "/_search/scroll", False),
        (TIMEOUT, "PUT", "/consumers-000002", False),
        (TIMEOUT, "POST", "/_aliases", False),
        (REFUSED, "PUT", "/consumers-000002", True),
        (WITHOUT_MANAGER, "POST", "/consumers-read/_search", True),
        (WITHOUT_MANAGER, "PUT", "/consumers-000002", False),
        (OVERLOADED, "POST", "/consumers-000001-write/_bulk", False),
        (FORBIDDEN, "GET", "/_cluster/state", False),
    ],
)
def test_only_requests_without_effect_or_with_versions_are_repeated(
    error: TransportError,
    method: str,
    url: str,
    repeated: bool,  # noqa: FBT001 (a parameter)
) -> None:
    assert may_repeat(error, method, url) is repeated


def test_only_nodes_without_answer_or_manager_are_suspect() -> None:
    errors = (TIMEOUT, REFUSED, WITHOUT_MANAGER, WITHOUT_SHARD, OVERLOADED, FORBIDDEN)
    assert [is_node_at_fault(error) for error in errors] == [True, True, True, False, False, False]


def test_missing_right_takes_no_node_out_of_use() -> None:
    assert is_answer(FORBIDDEN)
    assert not is_answer(TIMEOUT)
    assert not is_answer(WITHOUT_MANAGER)
