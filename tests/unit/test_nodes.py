"""Which failed requests go to the next node, which nodes are tried, and which probes count as answers."""

import pytest
from opensearchpy import Transport
from opensearchpy.exceptions import AuthorizationException, ConnectionTimeout, TransportError
from opensearchpy.exceptions import ConnectionError as NoAnswer

from infra.index.nodes import (
    Node,
    Nodes,
    View,
    is_answer,
    is_in_all_views,
    is_node_at_fault,
    is_unavailable,
    may_repeat,
)

TIMEOUT = ConnectionTimeout("TIMEOUT", "", None)
REFUSED = NoAnswer("N/A", "", None)
WITHOUT_MANAGER = TransportError(503, "cluster_block_exception", {})
WITHOUT_SHARD = TransportError(503, "search_phase_execution_exception", {})
OVERLOADED = TransportError(429, "circuit_breaking_exception", {})
NODE_LEFT = TransportError(500, "search_phase_execution_exception", {"root_cause": "node_disconnected_exception"})
TOO_LONG = TransportError(500, "search_phase_execution_exception", {"root_cause": "too_many_nested_clauses"})
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


def test_search_is_repeated_only_while_no_copy_can_be_searched() -> None:
    errors = (TIMEOUT, REFUSED, WITHOUT_MANAGER, WITHOUT_SHARD, NODE_LEFT, TOO_LONG, OVERLOADED, FORBIDDEN)
    assert [is_unavailable(error) for error in errors] == [True] * 5 + [False] * 3


def view(*members: str, manager: str | None = "manager") -> View:
    return View(1, manager, dict.fromkeys(members))


WHOLE = view("reader", "other", "manager")
FOUR = view("reader", "other", "manager", "fourth")


@pytest.mark.parametrize(
    ("views", "confirmed"),
    [
        ({"other": WHOLE}, True),
        ({"other": WHOLE, "manager": None}, True),
        ({"other": WHOLE, "manager": WHOLE}, True),
        ({}, False),
        ({"other": None, "manager": None}, False),
        # The manager has removed the node, but answers with a delay.
        ({"other": view("other", "manager"), "manager": None}, False),
        ({"other": WHOLE, "manager": view("other", "manager")}, False),
        # Without a manager the node knows nothing about removals.
        ({"other": view("reader", "other", "manager", manager=None)}, False),
        # A fourth node may hold the primary, and know about the removal first.
        ({"other": FOUR}, False),
        ({"other": FOUR, "fourth": FOUR}, True),
        # The other node is the manager.
        ({"other": view("reader", "other", manager="other")}, True),
    ],
)
def test_views_of_all_nodes_but_the_manager_confirm_a_node(
    views: dict[str | None, View | None],
    confirmed: bool,  # noqa: FBT001 (a parameter)
) -> None:
    assert is_in_all_views("reader", views) is confirmed


def test_node_without_known_id_is_not_confirmed() -> None:
    assert not is_in_all_views(None, {"other": WHOLE})


def three_nodes() -> Nodes[Transport]:
    nodes = [Node(f"node{number}", Transport([{}]), Transport([{}])) for number in range(3)]
    return Nodes(nodes, timeout=10, attempt_seconds=3)


def test_node_taken_out_of_use_during_an_attempt_is_not_tried() -> None:
    nodes = three_nodes()
    attempts = nodes.attempts(None)
    assert next(attempts)[0] is nodes.all[0]
    nodes.record_probe(nodes.all[1], healthy=False)
    node, seconds = next(attempts)
    assert node is nodes.all[2]
    assert seconds > 3, "the last node gets the remaining time"
    assert list(attempts) == []


def test_no_node_is_tried_while_all_are_out_of_use() -> None:
    nodes = three_nodes()
    for node in nodes.all:
        nodes.record_probe(node, healthy=False)
    with pytest.raises(NoAnswer, match="no node answers"):
        next(nodes.attempts(None))
