"""Folding of text for conditions and for the forms of names, the same in documents and in queries.

`fold` removes case. `plain` also removes accents and width, as the index's `icu_folding` does in names and addresses: a
test compares both, letter by letter.
"""

import unicodedata

QUOTES = dict.fromkeys("‘’‚‛′", "'") | dict.fromkeys("“”„«»", '"')
LETTERS = {"æ": "ae", "œ": "oe", "ð": "d", "þ": "th", "ı": "i", "ŋ": "n", "ə": "a", "ǝ": "e", "ɛ": "e", "ɔ": "o"}
LETTERS |= {"ة": "ه", "ى": "ي", "ی": "ي", "ک": "ك", "−": "-"} | QUOTES
"""Characters that Unicode does not decompose. `_without_stroke` folds further letters."""
INVISIBLE_LETTERS = frozenset([*range(0x2B9, 0x2D2), 0x559, 0x640, 0x30FC])
"""Prime marks and other modifiers, the Arabic elongation and the Japanese long vowel."""
KEPT_MARKS = frozenset([0x345, *range(0x363, 0x370), 0xE38, 0xE39, *range(0xEB4, 0xEBB)])
LOST_MARKS = frozenset([0x34F, *range(0xE47, 0xE4D), 0xE4E, *range(0x17C9, 0x17D2), *range(0xFE00, 0xFE10)])
"""Marks that have no combining class, and are left out nevertheless."""


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
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def plain(text: str) -> str:
    """Return text without case, accents, width and invisible characters."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", decomposed.translate(_PLAIN))


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
