"""The words of `search` and `q` as typed or copied (contract.md §2 "Matching").

Pure functions. Titles before a name, `mailto:` and `tel:` before an address or number, and invisible characters are
passed over. Consecutive words that may form a phone number with spaces are a unit; any other word is a unit by itself.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from infra.index import names
from infra.index.folding import plain
from infra.index.names import Parts, Piece, Span
from infra.index.symbols import JOINER, symbols

MAX_TEXT = 300
MAX_WORDS = 32
MAX_FORM_WORDS = 8
"""Words of a query whose forms (`infra/index/names.py`) are looked up. A query with more words has too many clauses."""
PHONE_WORD = re.compile(r"[0-9+\-.()/x#]*[0-9+()][0-9+\-.()/x#]*")
SCHEME = re.compile(r"(?<!\S)([<(\"']*)(?:mailto|tel|sms|callto):", re.IGNORECASE)
MAIL_HEADERS = re.compile(r"(@[^\s?]+)\?[^\s>]*")
"""Headers in a link to an address: `?subject=Hello`."""
TITLES_OF_LANGUAGES = """
    Mr Mrs Ms Mx Dr Prof Smt MUDr JUDr PhDr RNDr
    Frau Fräulein Dr-Ing Dipl-Ing Dipl-Kfm Hr Fru Frøken Frk Mevr Mevrouw Dhr Meneer
    Mme Mlle Mademoiselle Sr Sra Srta Dra Profa Señor Señora Señorita
    Dott Dottssa Dottor Dottore Dottoressa Signora Signorina Sigra
    г-н г-жа господин госпожа κος κα κύριος κυρία السيد السيدة الدكتور श्रीमती"""
"""Without dots. Titles that are names at least as often, such as Don, Dame or Pani, are not passed over."""
TITLES = frozenset(map(plain, TITLES_OF_LANGUAGES.split()))
FIRST_TITLES_OF_LANGUAGES = """
    Miss Sir Doctor Professor Shri Herr Doktor Madame Monsieur Señor Signor Signore Sayın श्री"""
FIRST_TITLES = frozenset(map(plain, FIRST_TITLES_OF_LANGUAGES.split()))
"""Titles that are family names too. They are titles only before the whole name."""
DOTTED_TITLES = frozenset(
    {"m", "mm", "me", "mw", "fr", "sig", "ing", "avv", "rev", "hon", "mag", "dipl", "pr", "mgr", "lic"}
)
"""Words that are titles only with a dot and before the whole name, as in `M. Dupont`. Others may be initials."""
FIELDS_OF_DOCTORS = frozenset({"med", "rer", "nat", "phil", "jur", "habil", "oec", "pol", "theol", "vet", "dent"})
"""With a dot and after another title, as in `Dr. rer. nat.`"""
INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*\.?")
HONORIFICS = ("様", "さま", "さん", "先生", "君", "くん", "ちゃん", "女士", "小姐", "님", "씨")
"""Titles after a name, without a space."""
SHARED_HONORIFIC, MAX_CHINESE_NAME = "君", 4
"""A title in Japanese, and the end of many Chinese given names. A Chinese name has up to four characters."""
THAI_TITLE = re.compile("(?:นางสาว|นาง|นาย|คุณ(?!วุฒิ|ธรรม|ภัทร))(?=[\u0e01-\u0e2f\u0e40-\u0e44]{2})")
"""Before a name, without a space. After it comes a letter, or a vowel written before its letter. A few names begin with
คุณ."""


class Forms(NamedTuple):
    """What is looked up for a word besides the word itself."""

    keys: Sequence[str]
    """Forms of the word, and of the word joined with its neighbours, as names have them."""
    spellings: Sequence[str]
    """Those that are words of other names: `mueller` for Müller, `oquill` for `o quill`."""
    symbols: Sequence[str]
    """The symbols of a word without letters and digits."""


class Query(NamedTuple):
    """A query, read."""

    text: str
    """Without invisible characters, `mailto:` and `tel:`."""
    name: str
    """The words without titles. Empty without any letter or digit."""
    titles: Sequence[str]
    units: Sequence[Sequence[str]]
    """Units without repetitions, without the titles. Each has a word or more."""
    forms: Mapping[str, Forms]
    """By word."""

    def forms_of(self, word: str) -> Forms:
        return self.forms.get(word, NO_FORMS)


NO_FORMS = Forms((), (), ())


@lru_cache(maxsize=256)
def read(text: str) -> Query:
    """Read a query."""
    text = visible(text)
    without_schemes = MAIL_HEADERS.sub(r"\1", SCHEME.sub(r"\1", text)).strip()
    text = without_schemes or text
    titles, kept = _without_titles(words(text))
    runs = [(phone, list(run)) for phone, run in groupby(kept, lambda word: bool(PHONE_WORD.fullmatch(word)))]
    units = [unit for phone, run in runs for unit in ([run] if phone else [[word] for word in run])]
    parts = names.parts(" ".join(kept))
    return Query(
        text,
        " ".join(kept) if parts.pieces else "",
        titles,
        list({tuple(unit): unit for unit in units}.values()),
        _forms(kept, parts) if len(kept) <= MAX_FORM_WORDS else {},
    )


def visible(text: str) -> str:
    """Return text without invisible characters (Unicode's format characters), anywhere.

    Only the joiner of an emoji remains: without the joiner, a family is three people.
    """
    if text.isascii():
        return text
    return "".join(
        character
        for before, character in zip(" " + text, text, strict=False)
        if unicodedata.category(character) != "Cf"
        or (character == JOINER and unicodedata.category(before) in {"So", "Mn", "Sk"})
    )


def is_long_enough(text: str) -> bool:
    """Return whether a query has two visible characters, or a single one of Han, Hangul or kana."""
    letters = normalized(visible(text)).strip()
    return len(letters) > 1 or bool(names.SYLLABIC.fullmatch(letters))


def words(text: str) -> list[str]:
    """Split a query into words. Punctuation alone (`&` in `Smith & Sons`) is dropped, unless nothing else is left."""
    candidates = normalized(text).split() or [text]
    return [word for word in candidates if not all(map(_is_punctuation, word))] or candidates


def normalized(text: str) -> str:
    """Return the text as typed on a keyboard.

    Characters have usual width, digits are ASCII, dashes are hyphens. An accent without a letter becomes an apostrophe.
    """
    if text.isascii():
        return text
    return "".join(map(_normalized_character, names.compatible(visible(text))))


def _normalized_character(character: str) -> str:
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "-" if unicodedata.category(character) == "Pd" else character


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" or unicodedata.category(character) in {"Sm", "Sc", "Sk"}


def _without_titles(candidates: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the titles, and the other words. A title with no word after it is not a title."""
    titles: list[str] = []
    kept: list[str] = []
    is_first = True
    for number, word in enumerate(candidates):
        is_last = number == len(candidates) - 1
        following = "" if is_last else candidates[number + 1]
        is_before_initial = bool(INITIALS.fullmatch(following))
        title, name = _split_title(
            word, is_first=is_first, is_after_title=bool(titles), is_before_initial=is_before_initial
        )
        if title and is_last and not name:
            title, name = "", word
        titles += [title] if title else []
        kept += [name] if name else []
        is_first = (is_first and not name) or word.endswith((",", ";", ":"))
    if len(kept) > 1 and _is_honorific(kept[-1], "".join(kept[:-1])):
        titles.append(kept.pop())
    return titles, [_without_honorific(word) for word in kept]


def _split_title(word: str, *, is_first: bool, is_after_title: bool, is_before_initial: bool) -> tuple[str, str]:
    """Return the title in a word, and the rest of the word: `Dr.` and `Smith` for `Dr.Smith`.

    Args:
        word: the word.
        is_first: whether no word of the name is before.
        is_after_title: whether a title is before. A single letter is then an initial.
        is_before_initial: whether an initial is next. A single letter is then an initial too.
    """
    inner = word.strip(",;:()")
    if "@" in word or (len(inner.rstrip(".")) > 1 and INITIALS.fullmatch(inner)):
        return "", word
    bare = plain(inner).replace(".", "")
    is_initial = len(bare) == 1 and (is_after_title or is_before_initial)
    is_dotted = bare in DOTTED_TITLES or (is_after_title and bare in FIELDS_OF_DOCTORS)
    if bare in TITLES or (
        is_first and (bare in FIRST_TITLES or (is_dotted and inner.endswith(".") and not is_initial))
    ):
        return word, ""
    first, dot, rest = word.partition(".")
    if dot and rest[:1].isalpha() and len(rest) > 2 and plain(first) in TITLES:  # noqa: PLR2004
        return first, rest
    return "", word


def _is_honorific(text: str, name: str) -> bool:
    """Return whether a text after a name is a title."""
    if text != SHARED_HONORIFIC:
        return text in HONORIFICS
    return len(name) >= MAX_CHINESE_NAME or bool(names.KANA.search(name))


def _without_honorific(word: str) -> str:
    """Return a word without the title written together with a name: 山田様, คุณสมชาย."""
    for honorific in HONORIFICS:
        name = word.removesuffix(honorific)
        if 1 < len(name) < len(word) and names.SYLLABIC.match(word) and _is_honorific(honorific, name):
            return name
    return THAI_TITLE.sub("", word, count=1) if THAI_TITLE.match(word) else word


def _forms(kept: Sequence[str], parts: Parts) -> dict[str, Forms]:
    """Return the forms of each word: first by itself, then joined with the words beside."""
    keys: dict[str, dict[str, None]] = {word: {} for word in kept}
    singles = [Span(begin, begin + 1, piece.key, piece.spelling) for begin, piece in enumerate(parts.pieces)]
    for span in [*singles, *names.spans(parts)]:
        joined = kept[parts.words[span.begin] : parts.words[span.end - 1] + 1]
        if _is_of_whole_words(parts.words, span) and _is_name(joined):
            for word in joined:
                keys[word] |= dict.fromkeys(_keys(span, parts.pieces[span.begin : span.end]))
    forms = {word: _forms_of(word, list(of_word)) for word, of_word in keys.items()}
    return {word: of_word for word, of_word in forms.items() if any(of_word)}


def _forms_of(word: str, keys: Sequence[str]) -> Forms:
    if not keys:
        return Forms((), (), () if names.parts(word).pieces else symbols(word))
    katakana = [key.translate(names.TO_KATAKANA) for key in keys if not key.isascii()]
    return Forms(keys, [key for key in dict.fromkeys([*keys, *katakana]) if key != plain(word)], ())


def _keys(span: Span, pieces: Sequence[Piece]) -> list[str]:
    """Return the keys of neighbouring pieces. A single letter is joined with single letters only: not `ann a`."""
    if len(pieces) == 1:
        return [span.text, *pieces[0].forms]
    is_letter = [len(piece.key) == 1 and not piece.is_syllabic for piece in pieces]
    return [span.text, span.spelling] if not is_letter[-1] or all(is_letter) else []


def _is_of_whole_words(words: Sequence[int], span: Span) -> bool:
    begin, end, *_ = span
    return (begin == 0 or words[begin - 1] != words[begin]) and (end == len(words) or words[end] != words[end - 1])


def _is_name(some: Sequence[str]) -> bool:
    """Return whether all words may be of a name: neither numbers nor parts of an address."""
    return not any("@" in word or PHONE_WORD.fullmatch(word) for word in some)
