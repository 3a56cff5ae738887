"""The cost of a question is bounded and known before it is sent."""

from collections.abc import Iterator
from typing import Any

import pytest

from api.consumers import query
from api.search import EXPENSIVE
from infra.filters import costs, language
from infra.filters.clauses import clause
from infra.filters.conditions import MAX_CLAUSES, clauses_of
from infra.index.search_texts import words_of_name

OPENSEARCH_CLAUSES = 1024


def parts(body: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a query."""
    if isinstance(body, dict):
        yield body
    for inner in body.values() if isinstance(body, dict) else body if isinstance(body, list) else ():
        yield from parts(inner)


def typos(q: str, *, explain: bool = False) -> list[dict[str, Any]]:
    return [part for part in parts(query.search_query(1, q, {}, region="GB", explain=explain)) if "fuzziness" in part]


def words_with_typos(q: str) -> list[str]:
    return [part["query"] for part in typos(q)]


LONGEST = "a" * 24


def test_typos_are_tolerated_in_the_first_five_words_of_24_letters() -> None:
    words = ["jose", LONGEST, "garcia", "lopez", "perez", "sanchez"]
    assert words_with_typos(" ".join(words)) == words[:5]
    assert words_with_typos(f"jose {LONGEST}a garcia") == ["jose", "garcia"]
    assert words_with_typos(" ".join(["b" * 49] * 6)) == []


def test_repeated_words_cost_as_much_as_one() -> None:
    assert words_with_typos(f"{LONGEST} " * 12) == [LONGEST]
    once, often = (query.search_query(1, q, {}, region=None) for q in ("ann lee", "ann lee ann lee ann"))
    assert costs.cost(once) == costs.cost(often)


@pytest.mark.parametrize("q", ["jose", "jose garcia lopez", "020 7946 0958", "a@b.com", f"{LONGEST} " * 5])
def test_explanation_asks_for_no_typos_again(q: str) -> None:
    explained = [part["query"] for part in typos(q, explain=True)]
    assert sorted(explained) == sorted(map(words_of_name, set(q.split()))) == sorted(words_with_typos(q))


@pytest.mark.parametrize(
    ("q", "spellings"),
    [("jose", 500), ("jose garcia", 400), (" ".join(f"{LONGEST[:-1]}{letter}" for letter in "abcde"), 20)],
)
def test_spellings_share_the_clauses_of_a_query(q: str, spellings: int) -> None:
    tried = {int(part["fuzzy_rewrite"].removeprefix("top_terms_boost_")) for part in typos(q, explain=True)}
    assert all(number >= spellings for number in tried)


@pytest.mark.parametrize("words", [1, 2, 5, 12, 32])
@pytest.mark.parametrize("conditions", [0, 10, 45])
def test_query_with_all_spellings_stays_below_the_limit_of_opensearch(words: int, conditions: int) -> None:
    q = " ".join(f"anna{chr(97 + number)}" for number in range(words))
    filters = [clause(language.parse(f"email:~{'x' * 10}{number:02}"), None) for number in range(conditions)]
    body = query.search_query(1, q, {}, region=None, conditions=filters, explain=True)
    spellings = sum(
        int(part["fuzzy_rewrite"].removeprefix("top_terms_boost_")) for part in parts(body) if "fuzziness" in part
    )
    without_typos = costs.cost(body) - sum(1 for part in parts(body) if "fuzziness" in part)
    assert without_typos + spellings <= max(costs.MAX_CLAUSES, without_typos + 5)
    assert without_typos > costs.MAX_CLAUSES or without_typos + spellings < OPENSEARCH_CLAUSES


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("email:a", 1, 10),
        ("totalOrders:>5 createdAt:>2024-01-01 NOT email:*", 3, 10),
        (" ".join(f"metadata.k{n}:~{'x' * 9}" for n in range(50)), 600, MAX_CLAUSES),
    ],
)
def test_cost_of_a_filter_follows_its_clauses(text: str, least: int, most: int) -> None:
    expression = language.parse(text)
    assert least <= costs.cost(clause(expression, None)) <= most
    assert clauses_of(expression) <= MAX_CLAUSES


def test_filter_that_reads_the_fields_of_every_consumer_is_expensive() -> None:
    """A condition on one or two characters has no trigram."""
    text = " ".join(f"email:~{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
    assert costs.cost(clause(language.parse(text), None)) >= EXPENSIVE
    assert costs.cost(clause(language.parse(text.replace("~", "")), None)) < EXPENSIVE
