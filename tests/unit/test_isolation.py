"""Periods of the checks between nodes, from OpenSearch's settings."""

import pytest

from infra.index.isolation import RECOMMENDED, Period, period


@pytest.mark.parametrize(
    ("check", "settings", "expected"),
    [
        ("leader", RECOMMENDED, Period(2.5, 3.0)),
        ("follower", RECOMMENDED, Period(4.0, 4.5)),
        ("leader", {}, Period(32.0, 33.0)),
        ("follower", {"cluster.fault_detection.follower_check.timeout": "1m"}, Period(182.0, 183.0)),
    ],
)
def test_period_of_the_checks(check: str, settings: dict[str, str], expected: Period) -> None:
    assert period(check, settings) == expected


def test_node_gives_up_before_it_is_replaced() -> None:
    assert period("leader", RECOMMENDED).longest < period("follower", RECOMMENDED).shortest
