"""A filter as an audience's rules: the groups mean what the expression means, of whatever consumer."""

from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from api.audiences.rules import MAX_RULES, MAX_VALUES, Rule, expression, rules_of_filter
from infra.filters.conditions import AllOf, AnyOf, Condition, Expression
from infra.filters.language import FilterError, parse
from infra.filters.rules import TooManyRulesError, groups
from tests.filter_expressions import conditions, expressions, written
from tests.filter_reference import holds
from tests.random_consumers import person

MANY = [person(Random(seed)) for seed in range(400)]
people = st.sampled_from(MANY)
_encode, _decode = msgspec.json.encode, msgspec.json.Decoder(list[Rule]).decode


def grouped(said: Expression) -> list[tuple[Condition, ...]]:
    """The groups, of an expression that has some."""
    try:
        return groups(said, 1000)
    except (TooManyRulesError, ValueError):
        assume(False)  # noqa: FBT003 (hypothesis's own way)
        raise


@given(expressions(conditions()), st.lists(people, min_size=20, max_size=20))
@settings(max_examples=400, deadline=None)
def test_groups_mean_what_the_expression_means(said: Expression, some: list[dict[str, Any]]) -> None:
    found = AnyOf([AllOf(group) for group in grouped(said)])
    for one in some:
        assert holds(found, one, "GB") == holds(said, one, "GB")


@given(expressions(conditions()))
@settings(max_examples=400, deadline=None)
def test_rules_of_a_filter_are_sound_and_are_read_from_storage_as_they_were(said: Expression) -> None:
    assume(len(grouped(said)) <= MAX_RULES)
    try:
        rules = rules_of_filter(written(said))
    except TooManyRulesError:
        return
    assert 1 <= len(rules) <= MAX_RULES
    assert all(len(rule.values) <= MAX_VALUES for rule in rules)
    stored = _decode(_encode(rules))
    assert not [fault for rule in stored for fault in rule.faults(None)]  # type: ignore[arg-type]  # nobody in particular
    expected = [
        [condition._replace(values=list(condition.values)) for condition in group]
        for group in groups(parse(written(said)), MAX_RULES)
    ]
    assert expression(stored) == AnyOf([AllOf(group) for group in expected])


NAMES = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_filter_is_these_rules(text: str, said: list[tuple[str, str, list[Any], str | None]]) -> None:
    assert [(rule.field, rule.operator, rule.values, rule.group_id) for rule in rules_of_filter(text)] == said


@pytest.mark.parametrize(
    "text",
    [
        "NOT metadata.a:>5",
        " ".join(f"(email:{n} OR phone:*)" for n in range(6)),
        " ".join(f"(email:{n} OR phone:*)" for n in range(25)),
        "NOT (" + " OR ".join(f"(email:{n} phone:*)" for n in range(25)) + ")",
    ],
)
def test_what_takes_too_many_rules_or_none_can_say_is_refused(text: str) -> None:
    assert parse(text)
    with pytest.raises(ValueError, match=r"rules$|^Needs more than 50 rules") as caught:
        rules_of_filter(text)
    assert not isinstance(caught.value, FilterError)


@pytest.mark.parametrize("value", ["1" + "0" * 300, "-1" + "0" * 308, "0." + "0" * 299 + "1", "12345678901234567890"])
def test_number_of_json_is_read_back_as_the_database_writes_it(value: str) -> None:
    rule = f'[{{"field":"metadata.a","operator":"LESS_THAN","values":[{value}],"groupId":null}}]'.encode()
    [group] = expression(_decode(rule)).parts  # type: ignore[union-attr]  # of rules it is groups
    assert group == AllOf([Condition("metadata.a", "LESS_THAN", [Decimal(value)])])
