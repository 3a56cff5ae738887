"""Bodies are split into members and elements without parsing them; the split agrees with a parser."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import Problem
from api.parsing import elements, member, parse
from api.turns import Steps

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["]", '"', "\\", "[{", '":']),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def result(steps: Steps[Any]) -> Any:
    try:
        while True:
            next(steps)
    except StopIteration as finished:
        return finished.value


@given(
    others=st.dictionaries(st.text().filter(lambda name: name != "ids"), VALUES),
    value=VALUES,
    place=st.integers(0, 5),
    separators=st.sampled_from([(",", ":"), (" , ", "\n:\t")]),
    escaped=st.sampled_from([True, False]),
)
def test_member_is_split_from_the_others(
    others: dict[str, Any], value: Any, place: int, separators: tuple[str, str], escaped: Any
) -> None:
    members = list(others.items())
    members.insert(place, ("ids", value))
    body = json.dumps(dict(members), separators=separators, ensure_ascii=escaped).encode()
    names: list[str] = []
    assert json.loads(result(member(body, "ids", names.append))) == value
    assert names == list(others)


@given(value=st.lists(VALUES), limit=st.integers(0, 5), indent=st.sampled_from([None, 2]))
def test_elements_are_split_up_to_the_limit(value: list[Any], limit: int, indent: int | None) -> None:
    split = elements(json.dumps(value, indent=indent).encode(), limit)
    assert split is not None
    assert [json.loads(bytes(element)) for element in split] == value[: limit + 1]


@given(value=VALUES)
def test_text_that_is_json_is_parsed(value: Any) -> None:
    text = json.dumps(value).encode()
    if "\\u0000" in text.decode().replace("\\\\", ""):
        with pytest.raises(Problem):
            result(parse(text))
    else:
        assert result(parse(text)) == value


def test_missing_member_and_other_values_than_arrays() -> None:
    assert result(member(b'{"a": {"ids": 1}}', "ids", print)) == b""
    assert elements(b'{"a": 1}', 5) is None


@pytest.mark.parametrize(
    "body", [b'{"ids": 1, "ids": 1}', b'{"ids": [1], "a": 2, "ids": []}', b'{"ids": 1} x', b'{"ids"']
)
def test_member_that_is_no_json_or_sent_twice_is_refused(body: bytes) -> None:
    with pytest.raises(Problem, match="Invalid JSON"):
        result(member(body, "ids", print))


@pytest.mark.parametrize(
    "text", [b"1e400", b"-1e400", b"[" * 5000, b'{"a":{"b":1,"b":2}}', b'"\\\\\\u0000"', b"NaN", b'"\xff"']
)
def test_text_that_is_not_strict_json_is_refused(text: bytes) -> None:
    with pytest.raises(Problem, match="Invalid JSON") as refused:
        result(parse(text, "[3]"))
    assert refused.value.message
    assert refused.value.message.startswith("[3]: ")


@pytest.mark.parametrize("number", [b"1.2345678901234567e-300", b"0.1", b"-1.5E+10", b"5e-324", b"1e-400"])
def test_numbers_are_converted_as_by_msgspec(number: bytes) -> None:
    assert result(parse(number)) == msgspec.json.decode(number)
