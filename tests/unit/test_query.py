"""Query building: the words of a query, and the body of a page."""

from typing import Any, get_args

import pytest

from api.consumers import query, words
from api.consumers.query import Direction, SortField
from infra.filters.costs import MAX_CLAUSES, cost


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
        *((f"O{mark}Brien", ["O'Brien"]) for mark in "´\u1fbd\u1fbf\u1ffd＇"),
        ("jo\u200bse \ufeffgarcia\u00ad", ["jose", "garcia"]),
    ],
)
def test_text_is_split_at_spaces_without_lone_punctuation(text: str, expected: list[str]) -> None:
    assert words.words(text) == expected


@pytest.mark.parametrize(
    ("text", "titles", "kept"),
    [
        ("Mr Smith", ["Mr"], ["Smith"]),
        ("Herr Prof. Dr. Jürgen Weiß", ["Herr", "Prof.", "Dr."], ["Jürgen", "Weiß"]),
        ("Mme Dupont", ["Mme"], ["Dupont"]),
        ("M. Dupont", ["M."], ["Dupont"]),
        ("M Dupont", [], ["M", "Dupont"]),
        ("Dr.Smith", ["Dr"], ["Smith"]),
        ("Smith, Mrs. Anna", ["Mrs."], ["Smith,", "Anna"]),
        ("Señora Núñez", ["Señora"], ["Núñez"]),
        ("Sig.ra Rossi", ["Sig.ra"], ["Rossi"]),
        ("г-жа Иванова", ["г-жа"], ["Иванова"]),
        ("山田様", [], ["山田"]),
        ("김민준 씨", ["씨"], ["김민준"]),
        ("คุณสมชาย ใจดี", [], ["สมชาย", "ใจดี"]),
        ("คุณากร", [], ["คุณากร"]),
        ("คุณวุฒิ ใจดี", [], ["คุณวุฒิ", "ใจดี"]),
        ("Dr. med. Anna Roth", ["Dr.", "med."], ["Anna", "Roth"]),
        ("Dr", [], ["Dr"]),
        ("Mr Mrs", ["Mr"], ["Mrs"]),
        ("Smith Dr", [], ["Smith", "Dr"]),
        ("mr.smith@example.com", [], ["mr.smith@example.com"]),
        ("j.r.r. tolkien", [], ["j.r.r.", "tolkien"]),
        ("Don Johnson", [], ["Don", "Johnson"]),
        ("Mr. & Mrs. Smith", ["Mr.", "Mrs."], ["Smith"]),
        ("Müller Dr. Hans", ["Dr."], ["Müller", "Hans"]),
        ("MM. Dupont", ["MM."], ["Dupont"]),
        ("Dupont, M. Jean", ["M."], ["Dupont,", "Jean"]),
        ("Dr. rer. nat. Anna Roth", ["Dr.", "rer.", "nat."], ["Anna", "Roth"]),
        ("Dr.-Ing. Anna Roth", ["Dr.-Ing."], ["Anna", "Roth"]),
        ("MUDr. Jana Malá", ["MUDr."], ["Jana", "Malá"]),
        ("Phil. Roth", [], ["Phil.", "Roth"]),
        # Initials.
        ("M.S. Dhoni", [], ["M.S.", "Dhoni"]),
        ("M. S. Dhoni", [], ["M.", "S.", "Dhoni"]),
        ("Dhoni, M. S.", [], ["Dhoni,", "M.", "S."]),
        ("D.R. Horton", [], ["D.R.", "Horton"]),
        ("P.R. Sreejesh", [], ["P.R.", "Sreejesh"]),
        ("m.s dhoni", [], ["m.s", "dhoni"]),
        ("John M. Smith", [], ["John", "M.", "Smith"]),
        ("Anna Fr. Berg", [], ["Anna", "Fr.", "Berg"]),
        ("Dr. M. Smith", ["Dr."], ["M.", "Smith"]),
        ("Dr M.S. Roth", ["Dr"], ["M.S.", "Roth"]),
        # Names that are titles too.
        ("Dame Diop", [], ["Dame", "Diop"]),
        ("Pani Kumar", [], ["Pani", "Kumar"]),
        ("Narendra Pani Das", [], ["Narendra", "Pani", "Das"]),
        ("MM Kumar", [], ["MM", "Kumar"]),
        ("Hugh Herr Jr", [], ["Hugh", "Herr", "Jr"]),
        ("Herr Hugh", ["Herr"], ["Hugh"]),
        ("Smith, Sir John", ["Sir"], ["Smith,", "John"]),
        # A Japanese title that ends Chinese names.
        ("王昭君", [], ["王昭君"]),
        ("司马相君", [], ["司马相君"]),
        ("王 君", [], ["王", "君"]),
        ("山田君", [], ["山田君"]),
        ("山田太郎君", [], ["山田太郎"]),
        ("山田 太郎 君", ["君"], ["山田", "太郎"]),
        ("たろう君", [], ["たろう"]),
        ("山田くん", [], ["山田"]),
    ],
)
def test_titles_before_a_name_are_optional(text: str, titles: list[str], kept: list[str]) -> None:
    read = words.read(text)
    assert (read.titles, [word for unit in read.units for word in unit]) == (titles, kept)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mailto:ann@example.com", "ann@example.com"),
        ("MailTo:ann@example.com?subject=Hi&body=x", "ann@example.com"),
        ("Ann <mailto:ann@example.com>", "Ann <ann@example.com>"),
        ("tel:+44-20-7946-0958", "+44-20-7946-0958"),
        ("tel: 020 7946 0958", "020 7946 0958"),
        ("hotel:x", "hotel:x"),
        ("mailto:", "mailto:"),
    ],
)
def test_schemes_of_links_are_left_out(text: str, address: str) -> None:
    assert words.read(text).text == address


LONGEST = " ".join(f"m\u00fcll{letter}-\u00f6d{letter}" for letter in "abcdefgh")


@pytest.mark.parametrize("text", [LONGEST, " ".join(f"w{number}x" for number in range(words.MAX_WORDS)), "é" * 300])
def test_longest_query_has_room_in_the_limit_of_clauses(text: str) -> None:
    body = query.search_query(7, text, {}, region="GB")
    assert cost(body) < MAX_CLAUSES


SORTS: list[SortField] = list(get_args(SortField))


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
