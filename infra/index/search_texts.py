"""Texts that the index splits into words, and keys of whole values, made in Python for documents and for queries.

An analyzer of the index normalizes a text anew for each field. Here it is normalized once, and the analyzers of the
fields only split it.
"""

import re
import unicodedata

from infra.index.analysis import APOSTROPHES, HEBREW
from infra.index.folding import plain

WHOLE_NAME = "."
"""Marks the key of a whole name among the forms (`names.py`)."""
PART_END = "@"
"""Follows every part of an address."""
HARD_SPACE = "\u00a0"
MIDDLE_DOT = "·"
"""Left out of addresses, as the index's `icu_folding` does: Col·lell is the part `collell`."""
GERSHAYIM = re.compile(f'(?<=[{HEBREW}])"')
SET_OF_APOSTROPHES = frozenset(APOSTROPHES)
WITHOUT_APOSTROPHES = str.maketrans(dict.fromkeys(APOSTROPHES))


class _Signs(dict[int, str]):
    """For `str.translate`: punctuation, symbols and white space become a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        is_sign = unicodedata.category(character)[0] in "PS" or character.isspace()
        self[code] = kept = " " if is_sign else character
        return kept


_SIGNS = _Signs()


def words_of_name(name: str) -> str:
    """Return a name for the tokenizer: without apostrophes, in Unicode's form NFKC, with a space for `.` and `_`.

    O'Brien, O’Brien and OBrien are the same word. St.John and john_smith are two words: Unicode's rules would join each
    to a single word.
    """
    return _compatible(name).replace(".", " ").replace("_", " ")


def whole_name(name: str) -> str:
    """Return the key of a whole name: folded, with a space for punctuation and symbols."""
    return plain(" ".join(_compatible(name).translate(_SIGNS).split()))


def address_parts(key: str) -> str:
    """Return the parts of an address, or of a part of an address, between `@ . _ + -`, each with its end.

    >>> address_parts("zoë.lee@example.com")
    'zoe@ lee@ example@ com@'
    """
    if not key.isascii() or " " in key:
        key = plain(key).replace(MIDDLE_DOT, "").replace(" ", HARD_SPACE)
    dotted = key.replace("@", ".").replace("_", ".").replace("+", ".").replace("-", ".")
    if ".." in dotted or dotted[:1] == "." or dotted[-1:] == ".":
        dotted = ".".join(part for part in dotted.split(".") if part)
    return dotted and dotted.replace(".", f"{PART_END} ") + PART_END


def whole_name_form(name: str) -> str | None:
    """Return the form for a whole name; None for a name without punctuation, which `texts` holds already."""
    is_plain = name.replace(" ", "").isalnum() and "  " not in name
    if is_plain and (name.isascii() or SET_OF_APOSTROPHES.isdisjoint(name)):
        return None
    return WHOLE_NAME + key if (key := whole_name(name)) and key != plain(name) else None


def _compatible(name: str) -> str:
    if name.isascii():
        return name.replace("'", "").replace("`", "")
    if not SET_OF_APOSTROPHES.isdisjoint(name):
        name = name.translate(WITHOUT_APOSTROPHES)
    if '"' in name:
        name = GERSHAYIM.sub("", name)
    return unicodedata.normalize("NFKC", name)
