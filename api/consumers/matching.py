"""Clauses for `search` and `q` (contract.md §2 "Matching").

Pure functions: text in, clauses out. Each tier has a constant score, so scores do not move between refreshes and
replicas. Every unit of a query (`words.py`) must match.

The clauses also search an index of the former document version, which is read between a release and the next rebuild. A
clause for a field that an index does not have matches nothing.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from api.consumers import words
from api.consumers.words import Query
from infra import emails
from infra.filters.clauses import Clause
from infra.filters.costs import cost
from infra.index import names, search_texts
from infra.index.analysis import APOSTROPHES, DIGIT_STARTS
from infra.index.folding import plain
from infra.index.former_terms import plain_terms, text_terms
from infra.index.search_texts import PART_END, WHOLE_NAME, address_parts
from infra.phone_numbers import equivalents, searched_digits

Field = Literal["email", "phone", "fullName", "externalId"]

ADDRESS_QUOTES = "<>()[]{}\"'“”«»,;:"
"""Characters around a copied address, as in `Ann <ann@example.com>,`."""
TYPO_WORDS, TYPO_LETTERS = 5, 24
"""Typos are tolerated in the first words of a query, and in words of at most so many letters: OpenSearch needs up to
6 ms for such a word."""
MAX_SPELLINGS = 500
"""Indexed names that are tried for a word with a typo, the most similar first."""
MIN_TYPO_LETTERS = 4
TITLE_SCORE = 0.5
"""For a match of the titles too, which puts the row before the rows of the same tier."""


class FieldClause(NamedTuple):
    """A clause, and the searched field."""

    field: Field
    clause: Clause


def filter_clause(text: str, region: str | None) -> Clause:
    """Return the clause of `search`: unranked and without typos."""
    query = words.read(text)
    whole = [_whole_value(query.text, region)] + ([] if query.name else [_name_as_typed(query)])
    return _any([*whole, _match_units(query, _word_start, region)])


def ranking_clause(text: str, region: str | None, room: int) -> Clause:
    """Return the clause of `q`. A row's score is the number of the best tier reached.

    Args:
        text: the text of `q`.
        region: country of national phone numbers, as two letters.
        room: how many clauses the query may have besides its other parts.
    """
    query = words.read(text)
    starts = _match_units(query, _word_start, region)
    exact = [
        *([_match_units(query, _word_or_form, region)] if query.forms else []),
        _match_units(query, _whole_word, region),
        *([whole_name_clause(query)] if query.name else []),
        _name_as_typed(query),
        _name_in_capitals_as_typed(query),
        _whole_value(query.text, region),
        *_number_as_typed(query.text, region),
    ]
    tolerant = _tolerant_words(query)
    spellings = _spellings(tolerant, room - 2 * cost(starts) - sum(map(cost, exact)))

    def word_or_typo(query: Query, word: str, region: str | None) -> Clause:
        return _any([_word_start(query, word, region), *([_typo(word, spellings)] if word in tolerant else [])])

    tiers = [_match_units(query, word_or_typo, region), starts, *exact]
    scored = [{"constant_score": {"filter": tier, "boost": rank}} for rank, tier in enumerate(tiers, start=1)]
    ranked = {"dis_max": {"queries": scored}}
    if not query.titles:
        return ranked
    titles = _all([_title(query, title, region) for title in query.titles])
    return {"bool": {"must": [ranked], "should": [{"constant_score": {"filter": titles, "boost": TITLE_SCORE}}]}}


def whole_value_clauses(text: str, region: str | None) -> Iterator[FieldClause]:
    """Match if the whole text is the e-mail address, the phone number or the external id."""
    address = emails.fold(words.normalized(text).strip(ADDRESS_QUOTES))
    yield FieldClause("email", {"terms": {"texts": plain_terms("email", plain(address))}})
    yield FieldClause("email", {"match": {"email.whole": address}})  # former version
    yield from _external_id(text)
    yield from _phone("phoneDigits", searched_digits(text, region))


def word_clauses(query: Query, word: str) -> Iterator[FieldClause]:
    """Match a word of the name, or parts of the address."""
    if symbols := query.forms_of(word).symbols:
        yield FieldClause("fullName", _all([{"term": {"forms": symbol}} for symbol in symbols]))
    yield FieldClause("fullName", _name_words(word))
    for parts in _parts_of_addresses(word):
        yield FieldClause("email", _consecutive(parts))
        yield FieldClause("email", _former_consecutive(parts, "email.parts"))


def form_clauses(query: Query, word: str) -> Iterator[FieldClause]:
    """Match a form of the name, or a word of the name that is a form of the word."""
    keys, spellings, _ = query.forms_of(word)
    if keys:
        yield FieldClause("fullName", {"terms": {"forms": keys}})
    if spellings:
        yield FieldClause("fullName", {"terms": {"words": spellings}})
        yield FieldClause("fullName", {"terms": {"fullName": spellings}})  # former version


def prefix_clauses(query: Query, word: str, region: str | None) -> Iterator[FieldClause]:
    """Match the start of a word of the name or of a part of the address, or the start or end of the phone number."""
    keys, spellings, symbols = query.forms_of(word)
    if symbols:
        yield from word_clauses(query, word)
        return
    yield FieldClause("fullName", _name_words(word, ".starts"))
    if not word.isascii():
        yield FieldClause("fullName", {"match": {"nameRuns": {"query": word, "operator": "and"}}})
    if keys:
        yield FieldClause("fullName", {"terms": {"forms": keys}})
        yield FieldClause("fullName", {"terms": {"formStarts": keys}})
        yield FieldClause("email", {"terms": {"formStarts": [names.ADDRESS + keys[0]]}})
    if spellings:
        yield FieldClause("fullName", {"terms": {"words.starts": spellings}})
        yield FieldClause("fullName", {"terms": {"fullName.starts": spellings}})  # former version
    if any(map(names.SYLLABIC.match, spellings)):
        yield FieldClause("fullName", {"terms": {"nameRuns": spellings}})
    for parts in _parts_of_addresses(word):
        yield FieldClause("email", _consecutive(parts.removesuffix(PART_END)))
        yield FieldClause("email", _former_consecutive(parts, "email.starts"))
    forms = searched_digits(word, region)
    yield from _number_starts("phoneDigits", forms)
    yield from _number_starts("phoneReversed", [form[::-1] for form in forms])


def whole_name_clause(query: Query) -> Clause:
    """Match if the query, with or without the titles in it, is the whole name."""
    return _any([whole_name_match(text) for text in _texts_of_name(query)])


def whole_name_match(text: str) -> Clause:
    """Match if the text is the whole name, without accents and punctuation."""
    key = search_texts.whole_name(text)
    former = {"match": {"fullName.whole": text}}
    return _any([{"terms": {"texts": plain_terms("fullName", key)}}, {"term": {"forms": WHOLE_NAME + key}}, former])


def _name_as_typed(query: Query) -> Clause:
    """Match a name with the same accents, in any case."""
    return {"terms": {"texts": [term for text in _texts_of_name(query) for term in text_terms("fullName", text)]}}


def _name_in_capitals_as_typed(query: Query) -> Clause:
    """Match a name with the same accents and capitals."""
    return _any([_exactly_named(text) for text in _texts_of_name(query)])


def _exactly_named(name: str) -> Clause:
    if sent := names.as_sent(name):
        return {"term": {"forms": sent}}
    has_usual_capitals = {"bool": {"must_not": [{"term": {"forms": names.AS_SENT}}]}}
    return _all([{"terms": {"texts": text_terms("fullName", name)}}, has_usual_capitals])


def _texts_of_name(query: Query) -> list[str]:
    texts = [query.text, query.name] if query.titles else [query.text]
    return [unicodedata.normalize("NFC", text) for text in texts]


def _any(clauses: list[Clause]) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": clauses}}


def _number_as_typed(text: str, region: str | None) -> Iterator[Clause]:
    """Match the phone number in the form of the text, if the line has another form too."""
    form, *others = equivalents(text, region)
    if others:
        yield {"terms": {"texts": text_terms("phone", form)}}


def _all(clauses: list[Clause]) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}


def _match_units(query: Query, match: Callable[[Query, str, str | None], Clause], region: str | None) -> Clause:
    """Require a match of every unit, as a phone number or word by word."""
    clauses = []
    for unit in query.units:
        by_word = _all([match(query, word, region) for word in dict.fromkeys(unit)])
        clauses.append(by_word if len(unit) == 1 else _any([match(query, " ".join(unit), region), by_word]))
    return _all(clauses)


def _whole_value(text: str, region: str | None) -> Clause:
    return _any(_clauses(whole_value_clauses(text, region)))


def _whole_word(query: Query, word: str, region: str | None) -> Clause:
    return _any(_clauses([*word_clauses(query, word), *whole_value_clauses(word, region)]))


def _word_or_form(query: Query, word: str, region: str | None) -> Clause:
    """Match a part of the name or address. A whole number or external id beside a joined name ranks like a start."""
    del region
    return _any(_clauses([*word_clauses(query, word), *form_clauses(query, word)]))


def _word_start(query: Query, word: str, region: str | None) -> Clause:
    return _any(_clauses([*prefix_clauses(query, word, region), *_external_id(word)]))


def _tolerant_words(query: Query) -> Sequence[str]:
    """Return the words that may have typos."""
    distinct = dict.fromkeys(word for unit in query.units for word in unit)
    return [word for word in list(distinct)[:TYPO_WORDS] if len(word) <= TYPO_LETTERS]


def _title(query: Query, title: str, region: str | None) -> Clause:
    """Match a title of the query in a row. `ms` is also the initials of M.S."""
    initials = "".join(piece.key for piece in names.parts(title).pieces)
    return _any([_word_start(query, title, region), {"term": {"forms": initials}}])


def _clauses(field_clauses: Iterable[FieldClause]) -> list[Clause]:
    """Return the clauses. Terms of the same index field are looked up together."""
    clauses: list[Clause] = []
    terms: dict[str, list[str]] = {}
    for _, clause in field_clauses:
        if "terms" in clause:
            for name, values in clause["terms"].items():
                terms.setdefault(name, []).extend(values)
        else:
            clauses.append(clause)
    return [*clauses, *({"terms": {name: values}} for name, values in terms.items())]


def _external_id(text: str) -> Iterator[FieldClause]:
    yield FieldClause("externalId", {"terms": {"texts": plain_terms("externalId", plain(text))}})
    yield FieldClause("externalId", {"term": {"externalId.folded": text}})  # former version


def _name_words(word: str, sub_field: str = "", **options: Any) -> Clause:
    """Match a word of a query as one or more words of the name. The field `fullName` is of the former version."""
    fields = [f"{field}{sub_field}" for field in ("words", "fullName")]
    text = search_texts.words_of_name(word)
    return {"multi_match": {"query": text, "fields": fields, "operator": "and", **options}}


def _typo(word: str, spellings: int) -> Clause:
    """Match a word of the name with one wrong letter in 4 to 7 letters, or two from 8 on; the first must be right.

    The rewrite `top_terms` makes the automata of a word once. `constant_score` makes them again for every segment.
    """
    rewrite = f"top_terms_boost_{spellings}"
    return _name_words(word, fuzziness="AUTO:4,8", prefix_length=1, fuzzy_rewrite=rewrite)


def _spellings(tolerant: Sequence[str], room: int) -> int:
    """Return the spellings to try for each name in the words. Every spelling is a clause.

    OpenSearch may split a word into several names, such as `Ann-Marie`.
    """
    parts = sum(max(1, (len(word) + 1) // (MIN_TYPO_LETTERS + 1)) for word in tolerant)
    return max(1, min(MAX_SPELLINGS, room // max(1, parts)))


def _parts_of_addresses(word: str) -> Iterator[str]:
    """Yield the parts of an address in a word, as typed and without apostrophes, each part with its end."""
    typed = emails.fold(word.strip(ADDRESS_QUOTES))
    without_apostrophes = "".join(character for character in typed if character not in APOSTROPHES)
    for text in dict.fromkeys([typed, without_apostrophes]):
        if parts := address_parts(text):
            yield parts


def _consecutive(parts: str) -> Clause:
    """Match consecutive parts of the e-mail address. Without its end, the last part may be the start of a part."""
    return {"prefix": {"emailParts": parts}} if " " in parts else {"term": {"emailParts.starts": parts}}


def _former_consecutive(ended: str, last: str) -> Clause:
    """Match consecutive parts in an index of the former version, the last one in the sub-field `last`."""
    parts = ended.removesuffix(PART_END).split(f"{PART_END} ")
    if len(parts) == 1:
        return {"match": {last: parts[0]}}
    intervals: list[Clause] = [{"match": {"query": part}} for part in parts[:-1]]
    intervals.append({"match": {"query": parts[-1], "use_field": last}})
    return {"intervals": {"email.parts": {"all_of": {"ordered": True, "max_gaps": 0, "intervals": intervals}}}}


def _number_starts(target: Literal["phoneDigits", "phoneReversed"], forms: Sequence[str]) -> Iterator[FieldClause]:
    """Match the start of a number. The former version has all starts, those of `phoneReversed` in the field itself."""
    last = DIGIT_STARTS.stop - 1
    if indexed := [form for form in forms if len(form) <= last]:
        yield FieldClause("phone", {"terms": {f"{target}.starts": indexed}})
        yield from _phone(target, forms)
    for form in forms:
        if len(form) > last:
            yield FieldClause("phone", {"prefix": {target: form}})


def _phone(target: str, forms: Sequence[str]) -> Iterator[FieldClause]:
    if forms:
        yield FieldClause("phone", {"terms": {target: forms}})
