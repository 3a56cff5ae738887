"""Query building: the words of a query, and the body of a page."""

from typing import Any

import pytest

from api.consumers import matching, query
from api.consumers.query import Direction, SortField


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("José  García", ["José", "García"]),
        ("Ｊｏｓｅ\u3000\u00a0Ｇ", ["Jose", "G"]),
        ("Smith & Sons", ["Smith", "Sons"]),
        ("020 - 7946", ["020", "7946"]),
        ("O'Brien, Pat.", ["O'Brien,", "Pat."]),
        ("a@b.com", ["a@b.com"]),
        ("⭐ star", ["⭐", "star"]),
        ("-- &", ["--", "&"]),
        ("020–7946\u20110958", ["020-7946-0958"]),
        ("\u202a+٤٤ ٢٠", ["+44", "20"]),
        ("O´Brien", ["O'Brien"]),
        ("\u200e", ["\u200e"]),
    ],
)
def test_text_is_split_at_spaces_without_lone_punctuation(text: str, expected: list[str]) -> None:
    assert matching.words(text) == expected


SORTS: list[SortField] = ["createdAt", "email", "fullName", "lastOrderAt", "totalOrderValue", "totalOrders"]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_order_is_total_and_reversed_for_a_backward_page(sort: SortField, direction: Direction) -> None:
    order = query.list_order(1, sort, direction)
    assert order.clauses[-1] == {"id": {"order": direction}}
    there = query.page({}, order, 10, None)["sort"]
    back = query.page({}, order, 10, None, backward=True)["sort"]
    assert [list(clause) for clause in there] == [list(clause) for clause in back]
    turned = {"asc": "desc", "desc": "asc"}
    for one, other in zip(there, back, strict=True):
        for way, opposite in zip(one.values(), other.values(), strict=True):
            assert turned[way["order"]] == opposite["order"]
            assert (way.get("missing"), opposite.get("missing")) in {(None, None), ("_last", "_first")}


def test_page_requests_one_extra_row_after_the_position() -> None:
    order = query.list_order(7, "createdAt", "desc")
    body = query.page({"match_all": {}}, order, 20, [5, "cons_1"])
    assert (body["size"], body["search_after"]) == (21, ["7", 5, "cons_1"])
    assert len(body["search_after"]) == len(body["sort"])
    assert "search_after" not in query.page({}, order, 20, None)


def _rows(search: str | None) -> Any:
    return query.list_query(7, search=search, region=None, created_after=None, created_before=None)


@pytest.mark.parametrize("body", [_rows(None), _rows("jose"), query.search_query(7, "jose", {}, region=None)])
def test_every_query_is_limited_to_its_environment(body: dict[str, Any]) -> None:
    assert body["bool"]["filter"][0] == {"term": {"environmentId": "7"}}


def test_list_has_no_scores_and_search_has_constant_scores() -> None:
    assert _rows("jose garcia")["bool"].keys() == {"filter"}
    [tiers] = query.search_query(7, "jose garcia", {}, region=None)["bool"]["must"]
    scores = [tier["constant_score"]["boost"] for tier in tiers["dis_max"]["queries"]]
    assert scores == sorted(set(scores))
