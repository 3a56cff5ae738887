"""Messages about values and names that a client got wrong: what is wrong, what is allowed, and the code."""

import ast
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.audiences.schemas import AudienceCreate
from api.auth import Requester
from api.consumers.schemas import ConsumerCreate, GetParameters, ListParameters, SearchParameters
from api.error_codes import CODES, ErrorCode
from api.orders.schemas import OrderCreate
from api.validation import Checker

REQUESTER = Requester(key_id="key_1")
UNSTABLE = {"Expected `", "Object ", "`str`"}


def faults(struct: type[msgspec.Struct], *, is_query: bool = False, **raw: Any) -> dict[str, tuple[str, str]]:
    checker = Checker(REQUESTER, is_query=is_query)
    checker.check_object(raw, struct)
    return {fault.field: (fault.code.value, fault.message) for fault in checker.faults.listed}


@pytest.mark.parametrize(
    ("parameters", "code", "message"),
    [
        ({"sortDir": "DESC"}, "invalid_choice", "Must be asc or desc"),
        ({"first": "500"}, "out_of_range", "Must be at most 100"),
        ({"first": "0"}, "out_of_range", "Must be at least 1"),
        ({"first": "many"}, "invalid_type", "Must be a whole number"),
        ({"count": "maybe"}, "invalid_type", "Must be true or false"),
        ({"createdAfter": "1704067200"}, "invalid_time", "Must be a time in RFC 3339"),
        ({"limit": "50"}, "unknown_parameter", "Unknown parameter: use first; allowed are first, after,"),
        ({"page": "2"}, "unknown_parameter", "Unknown parameter: use after; "),
        ({"starting_after": "x"}, "unknown_parameter", "Unknown parameter: use after; "),
        ({"sort": "-createdAt"}, "unknown_parameter", "Unknown parameter: use sortBy; "),
        ({"created_after": "x"}, "unknown_parameter", "Unknown parameter: use createdAfter; "),
        ({"q": "john"}, "unknown_parameter", "Unknown parameter: use GET /api/v1/consumers/search?q=…"),
        ({"email": "a@b.example"}, "unknown_parameter", "Unknown parameter: use GET /api/v1/consumers/search?email=…"),
        ({"colour": "red"}, "unknown_parameter", "Unknown parameter: allowed are first, after,"),
    ],
)
def test_parameter_of_a_list(parameters: dict[str, str], code: str, message: str) -> None:
    [(field, fault)] = faults(ListParameters, is_query=True, **parameters).items()
    assert field in parameters
    assert (fault[0], fault[1][: len(message)]) == (code, message)


def test_parameters_of_other_reads() -> None:
    assert faults(SearchParameters, is_query=True, search="john")["search"][1].startswith("Unknown parameter: use q; ")
    assert faults(GetParameters, is_query=True, expand="orders")["expand"][1] == (
        "Unknown parameter: use include; allowed are include"
    )


@pytest.mark.parametrize(
    ("struct", "body", "field", "code", "message"),
    [
        (ConsumerCreate, {"externalId": 5}, "externalId", "invalid_type", "Must be text or null, not a number"),
        (ConsumerCreate, {"metadata": "gold"}, "metadata", "invalid_type", "Must be an object, not text"),
        (ConsumerCreate, {"full_name": "A"}, "full_name", "unknown_field", "Unknown field: use fullName; allowed are "),
        (ConsumerCreate, {"firstName": "A"}, "firstName", "unknown_field", "Unknown field: use fullName; "),
        (ConsumerCreate, {"tags": []}, "tags", "unknown_field", "Unknown field: use metadata; "),
        (ConsumerCreate, {"emial": "x"}, "emial", "unknown_field", "Unknown field: use email; "),
        (ConsumerCreate, {"phone": "abc"}, "phone", "invalid_phone", ""),
        (ConsumerCreate, {"email": "abc"}, "email", "invalid_email", "Invalid email format"),
        (OrderCreate, {"amount": "1,50"}, "amount", "invalid_amount", ""),
        (
            OrderCreate,
            {"amount": 1, "status": "completed"},
            "status",
            "invalid_choice",
            "Must be CANCELLED, COMPLETED, ",
        ),
        (OrderCreate, {"amount": 1, "currencyCode": "XXY"}, "currencyCode", "invalid_currency", ""),
        (AudienceCreate, {"name": "A", "type": "STATIC_LIST"}, "type", "invalid_choice", "Must be DYNAMIC, STATIC or "),
        (AudienceCreate, {"name": 5, "type": "STATIC"}, "name", "invalid_type", "Must be text, not a number"),
        (
            AudienceCreate,
            {"name": "A", "type": "DYNAMIC", "rules": [{"field": "email", "operator": ">", "values": ["a"]}]},
            "rules[0].operator",
            "invalid_choice",
            "Must be BETWEEN, CONTAINS, ",
        ),
        (
            AudienceCreate,
            {"name": "A", "type": "DYNAMIC", "rules": [{"field": "email", "operator": "EQUALS", "value": "a"}]},
            "rules[0].value",
            "unknown_field",
            "Unknown field: use values; ",
        ),
    ],
)
def test_field_of_a_body(
    struct: type[msgspec.Struct], body: dict[str, Any], field: str, code: str, message: str
) -> None:
    fault = faults(struct, **body)[field]
    assert (fault[0], fault[1][: len(message)]) == (code, message)
    assert not any(word in fault[1] for word in UNSTABLE)


def test_every_code_has_a_meaning_and_every_status_a_code() -> None:
    assert len({code.value for code in ErrorCode}) == len(ErrorCode)
    for code in ErrorCode:
        assert code.value == code.name.lower()
        assert code.meaning.endswith(".")
    assert set(CODES.values()) <= set(ErrorCode)


def test_every_code_is_used() -> None:
    used = {
        node.attr
        for path in Path("api").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ErrorCode"
    }
    by_resource = {
        "CONSUMER_NOT_FOUND",
        "ORDER_NOT_FOUND",
        "AUDIENCE_NOT_FOUND",
        "EXPORT_NOT_FOUND",
        "SEARCH_UNAVAILABLE",
    }
    assert {code.name for code in ErrorCode} - used - by_resource == set()
