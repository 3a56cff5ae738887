"""Folding of text for conditions and for the forms of names, the same in documents and in queries.

`fold` removes case. `plain` also removes accents and width, as the index's `icu_folding` does in names and addresses: a
test compares both, letter by letter.
"""

import unicodedata
from functools import lru_cache

QUOTES = dict.fromkeys("‘’‚‛′", "'") | dict.fromkeys("“”„«»", '"')
LETTERS = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ı": "i", "ŋ": "n", "ə": "a", "ǝ": "e", "ɛ": "e", "ɔ": "o"}
LETTERS |= {"ة": "ه", "ى": "ي", "ی": "ي", "ک": "ك", "−": "-"} | QUOTES
"""Characters that Unicode does not decompose. `_without_stroke` folds further letters."""
INVISIBLE_LETTERS = frozenset([*range(0x2B9, 0x2D2), 0x559, 0x640, 0x30FC])
"""Prime marks and other modifiers, the Arabic elongation and the Japanese long vowel."""
KEPT_MARKS = frozenset([0x345, *range(0x363, 0x370), 0xE38, 0xE39, *range(0xEB4, 0xEBB)])
LOST_MARKS = frozenset([0x34F, *range(0xE47, 0xE4D), 0xE4E, *range(0x17C9, 0x17D2), *range(0xFE00, 0xFE10)])
"""Marks that have no combining class, and are left out nevertheless."""


CACHED_WORDS, LONGEST_CACHED = 16_384, 64
"""Words kept in memory, and characters of the longest text whose words are kept: many names share their words."""


class _Plain(dict[int, str]):
    """For `str.translate`, on decomposed text in lower case."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = _plain_character(chr(code))
        return plain


_PLAIN = _Plain()


def fold(text: str) -> str:
    """Return text without case, by Unicode's canonical caseless matching."""
    if text.isascii():
        return text.lower()
    return " ".join(map(_cached_fold, text.split(" "))) if len(text) <= LONGEST_CACHED else _fold(text)


def plain(text: str) -> str:
    """Return text without case, accents, width and invisible characters."""
    if text.isascii():
        return text.lower()
    return " ".join(map(_cached_plain, text.split(" "))) if len(text) <= LONGEST_CACHED else _plain(text)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", decomposed.translate(_PLAIN))


# No character joins another across a space, so a text may be folded word by word.
_cached_fold, _cached_plain = lru_cache(CACHED_WORDS)(_fold), lru_cache(CACHED_WORDS)(_plain)


def _plain_character(character: str) -> str:
    if character in LETTERS or _is_left_out(character):
        return LETTERS.get(character, "")
    match unicodedata.category(character):
        case "Nd":
            return str(unicodedata.decimal(character))
        case "Pd":
            return "-"
        case "Ll":
            return _without_stroke(character)
    return character


def _is_left_out(character: str) -> bool:
    """Return whether a character is an accent, another mark that does not count, or invisible."""
    code = ord(character)
    match unicodedata.category(character):
        case "Mn":
            return code in LOST_MARKS or (unicodedata.combining(character) > 0 and code not in KEPT_MARKS)
        case "Lm":
            return code in INVISIBLE_LETTERS
        case category:
            return category in {"Cf", "Me"}


def _without_stroke(letter: str) -> str:
    """Return the letter in the Unicode name of `o with stroke`, `b with hook` and the like."""
    name, is_changed, _ = unicodedata.name(letter, "").partition(" WITH ")
    return unicodedata.lookup(name) if is_changed and name.startswith(("LATIN", "CYRILLIC")) else letter
