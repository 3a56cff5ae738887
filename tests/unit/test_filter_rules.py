"""Filters as rules of an audience: the groups are equivalent to the expression for any consumer."""

from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from api.audiences.rules import MAX_RULES, MAX_VALUES, Rule, rules_of_filter
from infra.filters.conditions import AllOf, AnyOf, Condition, Expression
from infra.filters.language import FilterError, parse
from infra.filters.rules import TooManyRulesError, groups
from infra.filters.stored_rules import expression
from tests.filter_expressions import conditions, expressions, written
from tests.filter_reference import holds
from tests.random_consumers import person

MANY = [person(Random(seed)) for seed in range(400)]
people = st.sampled_from(MANY)
_encode, _decode = msgspec.json.encode, msgspec.json.Decoder(list[Rule]).decode


def grouped(parsed: Expression) -> list[tuple[Condition, ...]]:
    """Return the rule groups of an expression; discard the example if there are none."""
    try:
        return groups(parsed, 1000)
    except (TooManyRulesError, ValueError):
        assume(False)  # noqa: FBT003 (the signature of hypothesis)
        raise


@given(expressions(conditions()), st.lists(people, min_size=20, max_size=20))
@settings(max_examples=400, deadline=None)
def test_rule_groups_are_equivalent_to_the_expression(parsed: Expression, consumers: list[dict[str, Any]]) -> None:
    from_groups = AnyOf([AllOf(group) for group in grouped(parsed)])
    for one in consumers:
        assert holds(from_groups, one, "GB") == holds(parsed, one, "GB")


@given(expressions(conditions()))
@settings(max_examples=400, deadline=None)
def test_rules_of_a_filter_are_valid_and_survive_storage(parsed: Expression) -> None:
    assume(len(grouped(parsed)) <= MAX_RULES)
    try:
        rules = rules_of_filter(written(parsed))
    except TooManyRulesError:
        return
    assert 1 <= len(rules) <= MAX_RULES
    assert all(len(rule.values) <= MAX_VALUES for rule in rules)
    stored = _decode(_encode(rules))
    assert not [fault for rule in stored for fault in rule.faults(None)]  # type: ignore[arg-type]  # no parent
    expected = [
        [condition._replace(values=list(condition.values)) for condition in group]
        for group in groups(parse(written(parsed)), MAX_RULES)
    ]
    assert expression(stored) == AnyOf([AllOf(group) for group in expected])


NAMES = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "expected_rules"),
    [
        ("email:a", [("email", "EQUALS", ["a"], None)]),
        ("email:a OR email:b OR email:c", [("email", "IN", NAMES, None)]),
        ("NOT (email:a OR email:b OR email:c)", [("email", "NOT_IN", NAMES, None)]),
        ("email:a phone:*", [("email", "EQUALS", ["a"], None), ("phone", "EXISTS", [], None)]),
        ("email:a OR phone:*", [("email", "EQUALS", ["a"], "1"), ("phone", "EXISTS", [], "2")]),
        ("NOT totalOrders:>5", [("totalOrders", "LESS_THAN_OR_EQUAL", [5], None)]),
        ("NOT NOT totalOrders:>5", [("totalOrders", "GREATER_THAN", [5], None)]),
        (
            "NOT lastOrderAt:<2024-01-01",
            [
                ("lastOrderAt", "GREATER_THAN_OR_EQUAL", ["2024-01-01T00:00:00.000Z"], "1"),
                ("lastOrderAt", "NOT_EXISTS", [], "2"),
            ],
        ),
        ("totalOrderValue:0.1", [("totalOrderValue", "EQUALS", [0.1], None)]),
        ("totalOrderValue:12345678901234567890", [("totalOrderValue", "EQUALS", ["12345678901234567890"], None)]),
        ("metadata.a:5", [("metadata.a", "EQUALS", ["5"], None)]),
    ],
)
def test_filter_becomes_these_rules(text: str, expected_rules: list[tuple[str, str, list[Any], str | None]]) -> None:
    assert [(rule.field, rule.operator, rule.values, rule.group_id) for rule in rules_of_filter(text)] == expected_rules


@pytest.mark.parametrize(
    "text",
    [
        "NOT metadata.a:>5",
        " ".join(f"(email:{n} OR phone:*)" for n in range(6)),
        " ".join(f"(email:{n} OR phone:*)" for n in range(25)),
        "NOT (" + " OR ".join(f"(email:{n} phone:*)" for n in range(25)) + ")",
    ],
)
def test_filter_that_rules_cannot_express_is_refused(text: str) -> None:
    assert parse(text)
    with pytest.raises(ValueError, match=r"rules$|^Needs more than 50 rules") as caught:
        rules_of_filter(text)
    assert not isinstance(caught.value, FilterError)


@pytest.mark.parametrize("value", ["1" + "0" * 300, "-1" + "0" * 308, "0." + "0" * 299 + "1", "12345678901234567890"])
def test_number_is_parsed_as_the_database_writes_it(value: str) -> None:
    rule = f'[{{"field":"metadata.a","operator":"LESS_THAN","values":[{value}],"groupId":null}}]'.encode()
    [group] = expression(_decode(rule)).parts  # type: ignore[union-attr]  # rules parse to groups
    assert group == AllOf([Condition("metadata.a", "LESS_THAN", [Decimal(value)])])
