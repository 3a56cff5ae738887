"""What a list or a search asks of OpenSearch. Pure functions: parameters in, a `_search` body out.

Scores are constants, one a tier (contract.md §2 "Matching"), so they do not move between refreshes and replicas.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, NamedTuple

import phonenumbers

from infra import fields
from infra.documents import time

Clause = dict[str, Any]
Direction = Literal["asc", "desc"]
SortField = Literal["createdAt", "email", "fullName", "lastOrderAt", "totalOrderValue", "totalOrders"]

MAX_TEXT = 300
MAX_WORDS = 32
NULLABLE = frozenset({"email", "fullName", "lastOrderAt"})
OPPOSITE: dict[Direction, Direction] = {"asc": "desc", "desc": "asc"}
PART_BREAKS = re.compile(r"[@._+\-]+")
AROUND = "<>()[]{}\"'“”«»,;:"
"""What stands around an address that is copied, as in `Ann <ann@example.com>,`."""
DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
PHONE_WORD = re.compile(r"[0-9+\-.()/x#]*[0-9+()][0-9+\-.()/x#]*")
PHONE_TEXT = re.compile(r"[0-9 +\-.()/x#]*")
PHONE_DIGITS, PHONE_LENGTH = 3, 40


class Order(NamedTuple):
    """A total order. `prefix` are sort values that are the same for every row, so cursors leave them out."""

    clauses: list[dict[str, Direction]]
    prefix: list[str]


def list_order(environment_id: int, sort_by: SortField, direction: Direction) -> Order:
    """The order of the list: by one field, nulls last, ties by id in the same direction."""
    field = f"{sort_by}.{direction}" if sort_by in NULLABLE else sort_by
    clauses: list[dict[str, Direction]] = [{field: direction}, {"id": direction}]
    if (sort_by, direction) == ("createdAt", "desc"):
        # Named whole, the order is the one the index is kept in, and a page is read instead of sorted.
        return Order([{"environmentId": "asc"}, *clauses], [str(environment_id)])
    return Order(clauses, [])


def search_order() -> Order:
    """Best match first, then the more recent order, then the newer consumer."""
    return Order([{"_score": "desc"}, {"lastOrderAt.desc": "desc"}, {"id": "desc"}], [])


def page(query: Clause, order: Order, size: int, place: Sequence[Any] | None, *, backward: bool = False) -> Clause:
    """One page of rows, and one more that tells whether the walk goes on.

    Args:
        query: which rows.
        order: their order.
        size: rows on the page.
        place: sort values of the row the page begins after (or, backward, ends before).
        backward: walk against the order; the rows come back in reverse.
    """
    clauses = order.clauses
    if backward:
        clauses = [{field: OPPOSITE[direction] for field, direction in clause.items()} for clause in clauses]
    body = {"query": query, "sort": clauses, "size": size + 1, "track_total_hits": False}
    return body if place is None else body | {"search_after": [*order.prefix, *place]}


def list_query(
    environment_id: int,
    *,
    search: str | None,
    region: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
) -> Clause:
    """The rows of a list: one environment's, filtered. Nothing here is scored."""
    filters = [_environment(environment_id)]
    if created_after or created_before:
        window = {"gte": created_after and time(created_after), "lt": created_before and time(created_before)}
        filters.append({"range": {"createdAt": {bound: moment for bound, moment in window.items() if moment}}})
    if search:
        filters.append(_any([_identity(search, region), _every(_units(search), _word_start, region)]))
    return {"bool": {"filter": filters}}


def search_query(environment_id: int, text: str, region: str | None) -> Clause:
    """The rows of a search, each scored by the best tier it reaches."""
    units = _units(text)
    tiers = [
        _every(units, _word_mistyped, region),
        _every(units, _word_start, region),
        _every(units, _whole_word, region),
        {"match": {"fullName.whole": text}},
        _identity(text, region),
    ]
    scored = [{"constant_score": {"filter": tier, "boost": rank}} for rank, tier in enumerate(tiers, start=1)]
    return {"bool": {"filter": [_environment(environment_id)], "must": [{"dis_max": {"queries": scored}}]}}


def _environment(environment_id: int) -> Clause:
    return {"term": {"environmentId": str(environment_id)}}


def _any(clauses: list[Clause]) -> Clause:
    return {"bool": {"should": clauses}}


def _all(clauses: list[Clause]) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}


def _units(text: str) -> list[list[str]]:
    """The words one by one; but those in a row that may be one telephone number, typed with spaces, together."""
    runs = [(phone, list(run)) for phone, run in groupby(words(text), lambda word: bool(PHONE_WORD.fullmatch(word)))]
    return [unit for phone, run in runs for unit in ([run] if phone else [[word] for word in run])]


def words(text: str) -> list[str]:
    """The words of a query, of any width. Punctuation by itself (`Smith & Sons`) is no word, unless it is all."""
    given = _typed(text).split() or [text]
    return [word for word in given if not all(map(_is_punctuation, word))] or given


def _typed(text: str) -> str:
    """As a keyboard gives it: of usual width, one kind of digits and of dashes, no marks of direction, which numbers
    copied from elsewhere carry. An acute accent by itself is meant for an apostrophe.
    """
    usual = DIRECTION.sub("", unicodedata.normalize("NFKC", text.replace("´", "'")))
    return "".join(map(_typed_character, usual))


def _typed_character(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "-" if unicodedata.category(character) == "Pd" else character


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" or unicodedata.category(character) in {"Sm", "Sc", "Sk"}


def _every(units: list[list[str]], match: Callable[[str, str | None], Clause], region: str | None) -> Clause:
    """Every unit matches: as one number, or word by word."""
    clauses = []
    for unit in units:
        one_by_one = _all([match(word, region) for word in unit])
        clauses.append(one_by_one if len(unit) == 1 else _any([match(" ".join(unit), region), one_by_one]))
    return _all(clauses)


def _identity(text: str, region: str | None) -> Clause:
    """The whole text is an e-mail address, a telephone number or an external id."""
    typed = _typed(text)
    return _any(
        [
            {"match": {"email.whole": typed.strip(AROUND)}},
            {"term": {"externalId.folded": text}},
            *_phone(typed, region, "phoneDigits"),
        ]
    )


def _whole_word(word: str, region: str | None) -> Clause:
    parts = _address_parts(word)
    return _any(
        [
            {"match": {"fullName": {"query": word, "operator": "and"}}},
            *([_in_sequence(parts, "email.parts")] if parts else []),
            {"term": {"externalId.folded": word}},
            *_phone(word, region, "phoneDigits"),
        ]
    )


def _word_start(word: str, region: str | None) -> Clause:
    parts = _address_parts(word)
    return _any(
        [
            {"match": {"fullName.starts": {"query": word, "operator": "and"}}},
            {"match": {"fullName.runs": {"query": word, "operator": "and"}}},
            *([_in_sequence(parts, "email.starts")] if parts else []),
            {"term": {"externalId.folded": word}},
            *_phone(word, region, "phoneDigits.starts", "phoneDigits.ends"),
        ]
    )


def _word_mistyped(word: str, region: str | None) -> Clause:
    """As typed, or a word of the name with one wrong letter in 4 to 7, two from 8 on, never the first."""
    typos = {"fuzziness": "AUTO:4,8", "prefix_length": 1, "fuzzy_rewrite": "constant_score"}
    return _any([_word_start(word, region), {"match": {"fullName": {"query": word, "operator": "and", **typos}}}])


def _address_parts(word: str) -> list[str]:
    return [part for part in PART_BREAKS.split(word.strip(AROUND)) if part]


def _in_sequence(parts: list[str], last: str) -> Clause:
    """Neighbouring parts of an e-mail address: whole ones, and the last as `last` has it (whole, or its start)."""
    if len(parts) == 1:
        return {"match": {last: parts[0]}}
    intervals = [{"match": {"query": part}} for part in parts[:-1]]
    intervals.append({"match": {"query": parts[-1], "use_field": last}})
    return {"intervals": {"email.parts": {"all_of": {"ordered": True, "max_gaps": 0, "intervals": intervals}}}}


def _phone(text: str, region: str | None, *targets: str) -> list[Clause]:
    """The digits of a number in any punctuation, national or international, against fields of digits."""
    if len(text) > PHONE_LENGTH or not PHONE_TEXT.fullmatch(text):
        return []
    digits = "".join(filter(str.isdigit, text))
    forms = {digits, digits.removeprefix("00")}
    if parsed := fields.parse_phone(text, region):
        forms.add(f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}")
    wanted = sorted(form for form in forms if len(form) >= PHONE_DIGITS)
    return [{"terms": {target: wanted}} for target in targets] if wanted else []
