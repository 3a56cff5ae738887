"""Symbols in names: emoji, flags and single signs."""

import unicodedata

JOINER = "\u200d"
"""Joins several emoji to one."""
FIRST_SYMBOL = "\u2100"
"""The symbols before this character are not looked up: signs of currencies, of arithmetic and the like."""
SKIN_TONES = range(0x1F3FB, 0x1F400)
FLAG_LETTERS = range(0x1F1E6, 0x1F200)


def symbols(text: str) -> list[str]:
    """Return the symbols of a text: each is an emoji with its joined parts, a flag, or a single sign.

    The colour of skin does not count, nor does the selector of a coloured or a plain sign.
    """
    found: list[str] = []
    is_joined = is_half_flag = False
    for character in text:
        if character == JOINER:
            is_joined = bool(found)
        elif ord(character) not in SKIN_TONES and unicodedata.category(character) in {"So", "Sm", "Sc"}:
            is_flag = ord(character) in FLAG_LETTERS
            if is_joined or (is_half_flag and is_flag):
                found[-1] += JOINER * is_joined + character
            else:
                found.append(character)
            is_half_flag = is_flag and not is_half_flag
            is_joined = False
    return list(dict.fromkeys(found))
