"""SELECT lists are made from row types."""

from typing import NamedTuple

import pytest

from infra.database.rows import select_list


class Pair(NamedTuple):
    first: int
    second: str


def test_select_list_has_the_fields_in_order() -> None:
    assert select_list(Pair._fields, "p") == "p.first, p.second"
    assert select_list(Pair._fields, "p", second="p.second::text") == "p.first, p.second::text AS second"


def test_expression_without_a_field_is_an_error() -> None:
    with pytest.raises(AssertionError):
        select_list(Pair._fields, "p", third="1")
