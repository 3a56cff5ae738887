"""Forms of a name: further words by which a name is found (contract.md §2, "Matching").

The analyzers of the index split a name into words. People also write a name joined (`devries`), without the article
(`quill` for O'Quill), in another spelling (`mueller` for Müller), or as a given name alone without a space before
(`민준`). Documents hold these forms as terms. A query looks up the keys of its words, made by the same functions. No
analyzer of the index takes part.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from infra.index.analysis import APOSTROPHES, HEBREW
from infra.index.folding import plain
from infra.index.symbols import FIRST_SYMBOL, symbols

CACHED_WORDS = 65_536
"""Many names share their words."""
ELIDED = frozenset({"dell", "dall", "nell", "dei", "degl", "sant", "quell", "all", "coll", "sull"})
"""Articles with an apostrophe, besides single letters."""
MAX_JOINED, SHORT = 5, 3
"""Pieces of a joined form, and letters of a particle or initial."""
MAX_PIECES, MAX_FORMS = 24, 64
"""Limits for long names of companies."""
SPELLINGS = {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "đ": "dj"}
MAX_SPELLED = 3
"""Up to this number, the umlauts of a word are written out in all combinations; otherwise all or none."""
ARABIC_ARTICLE, MIN_AFTER_ARTICLE = "ال", 3
HAN = "々〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HANGUL = "\uac00-\ud7a3"
HIRAGANA, KATAKANA = "\u3041-\u3096\u309d\u309e", "\u30a1-\u30fa\u30fc-\u30fe"
SYLLABIC = re.compile(f"[{HAN}{HANGUL}{HIRAGANA}{KATAKANA}]")
"""A character of a script without spaces: a syllable, or a word."""
KANA = re.compile(f"[{HIRAGANA}{KATAKANA}]")
TO_HIRAGANA = {code: code - 0x60 for code in [*range(0x30A1, 0x30F7), 0x30FD, 0x30FE]}
TO_KATAKANA = {hiragana: katakana for katakana, hiragana in TO_HIRAGANA.items()}
KOREAN_NAME = re.compile(f"[{HANGUL}]{{2,5}}")
KOREAN_DOUBLE_NAME = re.compile("남궁|황보|제갈|사공|선우|서문|독고|동방|망절|어금|소봉|장곡|강전|을지|부여|하후")
CHINESE_DOUBLE_NAME = re.compile(
    "欧阳|歐陽|司马|司馬|上官|诸葛|諸葛|慕容|夏侯|东方|皇甫|尉迟|尉遲|公孙|公孫|令狐|宇文|长孙|司徒|司空|轩辕|軒轅|端木|呼延|南宫|南宮|独孤|獨孤"
    "|钟离|鍾離|澹台|淳于|申屠|濮阳|濮陽|赫连|赫連"
)
UNIFIED_HAN_NAME = re.compile("[\u4e00-\u9fff]{2,4}")
"""The form of most names in Han."""
HAN_NAME = re.compile(f"[{HAN}][{HAN}{HIRAGANA}{KATAKANA}]{{1,7}}")
KANA_NAME = re.compile(f"[{HIRAGANA}{KATAKANA}]{{4,12}}")
HAN_FAMILY, KANA_FAMILY = range(1, 5), range(2, 7)
"""Lengths of a family name in characters."""
NOT_FIRST = frozenset("ぁぃぅぇぉっゃゅょゎー")
"""Kana that no word begins with."""
AS_SENT = "="
"""Marks a name with unusual capitals, as sent. The mark alone is a term of the document too."""
ADDRESS = "@"
"""Marks part of an e-mail address."""
SPACING_APOSTROPHES = {ord(mark): "'" for mark in APOSTROPHES if unicodedata.normalize("NFKC", mark) != mark}
"""Accents without a letter, typed as apostrophes. NFKC would split a word at these: a space and a combining accent."""
TURNED_COMMA = "ʻ"
SET_OF_APOSTROPHES = frozenset(APOSTROPHES)
PART_SEPARATORS = re.compile(r"[._+-]")


class Forms(NamedTuple):
    """Terms of a document."""

    whole: list[str]
    starts: list[str]
    """Forms found by their starts as well."""


class Piece(NamedTuple):
    """A part of a name between spaces, hyphens, dots and apostrophes."""

    key: str
    spelling: str
    """The key with umlauts written out."""
    forms: Sequence[str]
    """Other keys: further spellings, an Arabic word without the article, and the key itself after an article."""
    is_elided: bool
    """Whether an article with an apostrophe is before, as in O'Quill."""
    is_syllabic: bool
    """Whether the piece is in a script without spaces."""


class Parts(NamedTuple):
    """The pieces of a name, or of the words of a query."""

    pieces: list[Piece]
    words: list[int]
    """The number of the word between spaces, for each piece."""


class Span(NamedTuple):
    """Neighbouring pieces, joined."""

    begin: int
    end: int
    text: str
    spelling: str
    """With umlauts written out."""


class _Separators(dict[int, str]):
    """For `str.translate`: an apostrophe becomes `'`, any other sign `-`; invisible characters are left out.

    The Uzbek turned comma (oʻ, gʻ) is part of a letter.
    """

    def __missing__(self, code: int) -> str:
        character = chr(code)
        match unicodedata.category(character)[0]:
            case _ if character == TURNED_COMMA:
                separator = ""
            case _ if character in APOSTROPHES:
                separator = "'"
            case "C":
                separator = "" if unicodedata.category(character) == "Cf" else "-"
            case "P" | "S" | "Z":
                separator = "-"
            case _:
                separator = character
        self[code] = separator
        return separator


_SEPARATORS = _Separators()


def compatible(text: str) -> str:
    """Return the text in Unicode's form NFKC, with apostrophes in place of accents without a letter."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFC", text).translate(SPACING_APOSTROPHES))


def parts(text: str) -> Parts:
    """Split a name, or the words of a query, into pieces."""
    pieces: list[Piece] = []
    words: list[int] = []
    for number, word in enumerate((text if text.isascii() else compatible(text)).split()):
        of_word = _pieces_of_word(word)
        pieces += of_word
        words += [number] * len(of_word)
    return Parts(pieces[:MAX_PIECES], words[:MAX_PIECES])


def forms(name: str | None, address: str | None) -> Forms:
    """Return the forms of a consumer's name and e-mail address.

    >>> forms("Anna O'Quill", None)
    Forms(whole=['quill', 'oquill', 'annao'], starts=['quill', 'oquill'])
    """
    whole, starts = _of_name(name) if name else ([], [])
    if address and not SET_OF_APOSTROPHES.isdisjoint(address):
        starts = [*starts, *_of_address(address)]
    return Forms(whole, starts)


def key(text: str) -> str:
    """Return text as forms are compared: folded, and katakana as hiragana."""
    folded = plain(text)
    return folded if folded.isascii() else folded.translate(TO_HIRAGANA)


def spans(parts: Parts) -> Iterator[Span]:
    """Yield neighbouring pieces that may be joined: two pieces, all pieces of a word, or a longer piece with particles
    or initials.
    """
    pieces, words = parts
    for begin, first in enumerate(pieces):
        text, spelling, *_ = first
        long_pieces = int(len(text) > SHORT)
        for end in range(begin + 1, min(begin + MAX_JOINED, len(pieces))):
            key, spelled, *_ = pieces[end]
            text += key
            spelling += spelled
            long_pieces += len(key) > SHORT
            if end > begin + 1 and long_pieces > 1 and words[begin] != words[end]:
                break
            yield Span(begin, end + 1, text, spelling)


def as_sent(name: str) -> str | None:
    """Return the term of a name with unusual capitals; None for a name as people usually write it."""
    return None if name == name.title() else AS_SENT + name


def _of_name(name: str) -> Forms:
    is_ascii = name.isascii()
    if not is_ascii and KOREAN_NAME.fullmatch(name):
        return Forms(given := _korean_given_names(name), given)
    if not is_ascii and UNIFIED_HAN_NAME.fullmatch(name):
        return Forms(_han_given_names(name), [])
    first, _, second = name.partition(" ")
    if " " not in second and (is_ascii or max(name) < FIRST_SYMBOL):
        of_first, of_second = _pieces_of_word(first), _pieces_of_word(second)
        if len(of_first) == len(of_second) == 1:
            return _of_two_pieces(name, *of_first, *of_second)
    return forms_of_any_name(name)


def _of_two_pieces(name: str, first: Piece, second: Piece) -> Forms:
    own = [*first.forms, *second.forms]
    joined = [first.key + second.key]
    if (spelling := first.spelling + second.spelling) != joined[0]:
        joined.append(spelling)
    sent = as_sent(name)
    return Forms([*own, *joined, *([AS_SENT, sent] if sent else ())], own + joined if len(first.key) <= SHORT else own)


def forms_of_any_name(name: str) -> Forms:
    """Return the forms of a name. `forms` returns the same, faster for most names."""
    pieces, words = of_name = parts(name)
    starts = [form for piece in pieces for form in piece.forms]
    whole: list[str] = []
    for begin, end, text, spelling in spans(of_name):
        begins_short = len(pieces[begin].key) <= SHORT or words[begin] == words[end - 1]
        (starts if begins_short else whole).extend((text, spelling) if text != spelling else (text,))
    if not name.isascii():
        syllabic = [piece.key for piece in pieces if piece.is_syllabic]
        if len(syllabic) == 1:
            starts += _korean_given_names(*syllabic)
            whole += _han_given_names(*syllabic)
        if max(name) >= FIRST_SYMBOL:
            whole += symbols(name)
    whole = [*dict.fromkeys(starts + whole)][:MAX_FORMS] if starts else whole[:MAX_FORMS]
    if sent := as_sent(name):
        whole += [AS_SENT, sent]
    return Forms(whole, [*dict.fromkeys(starts)][:MAX_FORMS] if starts else starts)


def _of_address(address: str) -> Iterator[str]:
    """Yield the parts of an address without their apostrophes: `oneil` and `neil` for o'neil@example.com."""
    for part in PART_SEPARATORS.split(address.rpartition("@")[0]):
        if any(character in APOSTROPHES for character in part):
            pieces = parts(part).pieces
            yield ADDRESS + "".join(piece.key for piece in pieces)
            yield from (ADDRESS + piece.key for piece in pieces if piece.is_elided)


def _korean_given_names(name: str) -> list[str]:
    """Return the given name of a Korean name: all but the first syllable, or all but a double family name."""
    if not KOREAN_NAME.fullmatch(name):
        return []
    if len(name) <= 2 or not KOREAN_DOUBLE_NAME.match(name):  # noqa: PLR2004
        return [name[1:]]
    # 선우진 is 선 우진 or 선우 진.
    return [name[2:]] if len(name) > 3 else [name[1:], name[2:]]  # noqa: PLR2004


def _han_given_names(name: str) -> list[str]:
    """Return the possible given names of a Chinese or Japanese name without a space.

    The family name has one to four characters. Only the Chinese double family names are few enough for a list.
    """
    if HAN_NAME.fullmatch(name):
        lengths = (2,) if CHINESE_DOUBLE_NAME.match(name) else HAN_FAMILY
        return [name[length:] for length in lengths if length < len(name)]
    if KANA_NAME.fullmatch(name):
        return [name[length:] for length in KANA_FAMILY if length < len(name) - 1 and name[length] not in NOT_FIRST]
    return []


@lru_cache(maxsize=CACHED_WORDS)
def _pieces_of_word(word: str) -> Sequence[Piece]:
    pieces: list[Piece] = []
    for part in word.translate(_SEPARATORS).split("-"):
        first, *others = part.split("'")
        texts, is_elided = [first], False
        for text in others:
            if _is_article(texts[-1], text):
                texts.append(text)
            else:
                texts[-1] += text
        for text in texts:
            if (spellings := _spellings(text))[0]:
                pieces.append(_piece(spellings, is_elided=is_elided))
            is_elided = True
    return pieces


def _piece(spellings: Sequence[str], *, is_elided: bool) -> Piece:
    key, *others = spellings
    forms = [key, *others] if is_elided else others
    if key.startswith(ARABIC_ARTICLE) and len(key) >= len(ARABIC_ARTICLE) + MIN_AFTER_ARTICLE:
        forms.append(key.removeprefix(ARABIC_ARTICLE))
    return Piece(key, spellings[-1], forms, is_elided, bool(SYLLABIC.match(key)))


def _spellings(word: str) -> Sequence[str]:
    """Return the keys of a word: for Ødegård `odegard`, `odegaard`, `oedegard` and `oedegaard`."""
    if word.isascii():
        return [word.lower()]
    if SPELLINGS.keys().isdisjoint(word.lower()):
        return [key(word)]
    letters = [(letter, SPELLINGS[letter]) if letter in SPELLINGS else (letter,) for letter in word.lower()]
    if sum(len(choices) > 1 for choices in letters) > MAX_SPELLED:
        return [key(word), key("".join(choices[-1] for choices in letters))]
    return list(dict.fromkeys(key("".join(choice)) for choice in product(*letters)))


def _is_article(before: str, after: str) -> bool:
    """Return whether the text before an apostrophe is an article: O'Quill, D'Angelo, Dell'Acqua."""
    if len(after) < 2 or before in HEBREW:  # noqa: PLR2004 (a letter is no word)
        return False
    return len(before) == 1 or before.lower() in ELIDED
