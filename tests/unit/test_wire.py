"""JSON texts are compared as PostgreSQL stores them."""

import pytest

from infra.wire import is_same_json

SAME = [
    ('{"a":1,"b":[true,null]}', '{ "b" : [true, null], "a" : 1 }'),
    ('"é\\n"', '"\\u00e9\\u000a"'),
    ("1e2", "100"),
    ("1.50e1", "15.0"),
    ("1e22", "10000000000000000000000"),
    ("1e-7", "0.0000001"),
    ("-0.0", "0.0"),
    ("-0", "0"),
    ("0e5", "0"),
    ('{"a":1,"a":2}', '{"a":2}'),
]
DIFFERENT = [
    ("1", "true"),
    ("0", "false"),
    ("1", "1.0"),
    ("1.0", "1.00"),
    ("0", "0.0"),
    ("1", '"1"'),
    ("null", "{}"),
    ("[1,2]", "[2,1]"),
    ("[1]", "[true]"),
    ('{"a":[{"b":1}]}', '{"a":[{"b":1.0}]}'),
    ("0.1", "0.1000000000000000055"),
    ("9007199254740993", "9007199254740992.0"),
    ("12345678901234567890123", "12345678901234567890124"),
    ('"a"', '"A"'),
    ('"é"', '"e\\u0301"'),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_same_values(one: str, other: str) -> None:
    assert is_same_json(one.encode(), other.encode())


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_values(one: str, other: str) -> None:
    assert not is_same_json(one.encode(), other.encode())
