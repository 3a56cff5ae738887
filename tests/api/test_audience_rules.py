"""Rules of a DYNAMIC audience are validated when they are written (contract.md §4)."""

from typing import Any

import pytest

from tests.api.resources import faults
from tests.service import Account

MOMENT, LATER = "2024-01-01", "2024-11-01T10:00:00+02:00"
TEXT_FIELDS = ["email", "phone", "fullName", "externalId"]
NUMBER_FIELDS = ["totalOrders", "totalOrderValue"]
TIME_FIELDS = ["lastOrderAt", "createdAt", "updatedAt"]
COMPARING = ["GREATER_THAN", "GREATER_THAN_OR_EQUAL", "LESS_THAN", "LESS_THAN_OR_EQUAL", "BETWEEN"]
CONTAINING = ["CONTAINS", "NOT_CONTAINS"]
OPERATORS = ["EQUALS", "NOT_EQUALS", *COMPARING, *CONTAINING, "IN", "NOT_IN", "EXISTS", "NOT_EXISTS"]
EDGE = "metadata." + ".".join(["k" * 64] * 5)


def send(account: Account, *rules: dict[str, Any]) -> Any:
    return account.live.post("/audiences", json={"name": "A", "type": "DYNAMIC", "rules": rules})


def values(field: str, operator: str) -> list[Any]:
    one, two = {"T": ("a", "b"), "N": (1, 2.5), "M": (MOMENT, LATER)}[
        "M" if field in TIME_FIELDS else "N" if field in NUMBER_FIELDS or operator in COMPARING else "T"
    ]
    count = {"EXISTS": 0, "NOT_EXISTS": 0, "BETWEEN": 2, "IN": 2, "NOT_IN": 2}.get(operator, 1)
    return [one, two][:count]


@pytest.mark.parametrize("field", [*TEXT_FIELDS, *NUMBER_FIELDS, *TIME_FIELDS, "metadata.a", "metadata.a.b", EDGE])
def test_only_operators_supported_by_a_field_are_accepted(account: Account, field: str) -> None:
    rules = [{"field": field, "operator": operator, "values": values(field, operator)} for operator in OPERATORS]
    unsupported = COMPARING if field in TEXT_FIELDS else [] if field.startswith("metadata.") else CONTAINING
    refused = {f"rules[{index}].operator" for index, rule in enumerate(rules) if rule["operator"] in unsupported}
    if refused:
        assert faults(send(account, *rules)).keys() == refused
    supported = [rule for rule in rules if rule["operator"] not in unsupported]
    response = send(account, *supported)
    assert response.status_code == 201, response.text
    assert response.json()["rules"] == [rule | {"groupId": None} for rule in supported]


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("totalOrders", "EQUALS", "5"),
        ("totalOrderValue", "LESS_THAN", "1234.50"),
        ("totalOrderValue", "LESS_THAN", -1e22),
        ("totalOrders", "EQUALS", 12345678901234567890),
        ("metadata.a", "GREATER_THAN", "-1.5e3"),
        ("metadata.a", "EQUALS", True),
        ("metadata.a", "EQUALS", ""),
        ("metadata.é 💥", "EQUALS", "x"),
        ("metadata.metadata", "CONTAINS", "%_\\*"),
        ("email", "CONTAINS", " "),
        ("email", "EQUALS", "a" * 255),
        ("createdAt", "EQUALS", "2024-11-01T10:00:00.9996Z"),
    ],
)
def test_valid_rule_value_is_accepted(account: Account, field: str, operator: str, value: Any) -> None:
    response = send(account, {"field": field, "operator": operator, "values": [value]})
    assert response.status_code == 201, response.text
    [rule] = response.json()["rules"]
    assert (rule["field"], rule["values"]) == (field, [value])


@pytest.mark.parametrize(
    ("field", "operator", "rule_values", "fault"),
    [
        ("email", "EQUALS", [], "values"),
        ("email", "EQUALS", ["a", "b"], "values"),
        ("email", "EXISTS", ["a"], "values"),
        ("email", "IN", [], "values"),
        ("email", "IN", ["a"] * 101, "values"),
        ("email", "IN", ["a", 5, "", "b" * 256], {"values[1]", "values[2]", "values[3]"}),
        ("email", "EQUALS", [None], "values[0]"),
        ("email", "EQUALS", [["a"]], "values[0]"),
        ("email", "EQUALS", [{}], "values[0]"),
        ("email", "EQUALS", "a", "values"),
        ("email", "EQUALS", None, "values"),
        ("fullName", "EQUALS", [True], "values[0]"),
        ("totalOrders", "BETWEEN", [1], "values"),
        ("totalOrders", "BETWEEN", [2, 1], "values"),
        ("totalOrders", "BETWEEN", [1, 2, 3], "values"),
        ("totalOrderValue", "BETWEEN", ["10", "9.5"], "values"),
        ("totalOrders", "EQUALS", ["five"], "values[0]"),
        ("totalOrders", "EQUALS", [""], "values[0]"),
        ("totalOrders", "EQUALS", [" 5"], "values[0]"),
        ("totalOrders", "EQUALS", ["1_0"], "values[0]"),
        ("totalOrders", "EQUALS", ["٣"], "values[0]"),
        ("totalOrders", "EQUALS", ["NaN"], "values[0]"),
        ("totalOrders", "EQUALS", ["-Infinity"], "values[0]"),
        ("totalOrders", "EQUALS", ["1e999999999"], "values[0]"),
        ("totalOrders", "EQUALS", [True], "values[0]"),
        ("lastOrderAt", "EQUALS", ["yesterday"], "values[0]"),
        ("lastOrderAt", "EQUALS", [1730455200], "values[0]"),
        ("createdAt", "BETWEEN", [LATER, MOMENT], "values"),
        ("createdAt", "BETWEEN", [LATER, "2024-02-30"], "values[1]"),
        ("metadata.a", "LESS_THAN", ["x"], "values[0]"),
        ("metadata.a", "BETWEEN", ["a", "b"], {"values[0]", "values[1]"}),
        ("metadata.a", "CONTAINS", [5], "values[0]"),
        ("metadata.a", "CONTAINS", [""], "values[0]"),
        ("fullName", "NOT_CONTAINS", ["\u0301"], "values[0]"),
        ("metadata", "EXISTS", [], "field"),
        ("metadata.", "EXISTS", [], "field"),
        ("metadata.a..b", "EXISTS", [], "field"),
        ("metadata.a.b.c.d.e.f", "EXISTS", [], "field"),
        ("metadata." + "x" * 400, "EXISTS", [], "field"),
        ("Email", "EXISTS", [], "field"),
        ("id", "EXISTS", [], "field"),
        ("updated_at", "EXISTS", [], "field"),
        ("", "EXISTS", [], "field"),
        (5, "EXISTS", [], "field"),
        ("email", "equals", ["a"], "operator"),
        ("email", None, ["a"], "operator"),
    ],
)  # fmt: skip
def test_invalid_rule_is_refused_with_its_index(
    account: Account, field: Any, operator: Any, rule_values: Any, fault: str | set[str]
) -> None:
    valid = {"field": "email", "operator": "EXISTS"}
    response = send(account, valid, {"field": field, "operator": operator, "values": rule_values}, valid)
    assert faults(response).keys() == {f"rules[1].{name}" for name in ([fault] if isinstance(fault, str) else fault)}


@pytest.mark.parametrize("group", ["", "g" * 65, 5, []])
def test_invalid_group_id_is_refused(account: Account, group: Any) -> None:
    response = send(account, {"field": "email", "operator": "EXISTS", "groupId": group})
    assert faults(response).keys() == {"rules[0].groupId"}
