"""Texts as numbers, for windows of names and e-mail addresses (`windows.py`).

The first characters of a text are the digits of a number, so texts have distances, and a text plus a distance is a text
again. The numbers only nearly have the order of the texts, in the index names are sorted by Unicode's collation: so an
end of a window is a guess. A wrong guess costs another search, and never gives a wrong page.
"""

import unicodedata
from typing import NamedTuple

LENGTH = 24
"""Characters of a text that count."""
LAST = "\uffff"
"""Sorted after every other text."""
LATIN = f" 0123456789abcdefghijklmnopqrstuvwxyz{LAST}"
BLOCK = 256
"""Characters in each block of scripts before the East Asian scripts."""
EAST_ASIAN, SURROGATES, END = 0x2E00, 0xD800, 0xFFFF


class Digits(NamedTuple):
    """The characters of a script as digits."""

    first: int
    """The character with the digit 0; 0 for the digits in `LATIN`."""
    base: int

    @classmethod
    def of(cls, text: str) -> "Digits":
        """Return the digits for texts that begin like a text."""
        code = ord(text[:1] or " ")
        if code < BLOCK:
            return cls(0, len(LATIN))
        return cls(code - code % BLOCK, BLOCK) if code < EAST_ASIAN else cls(EAST_ASIAN, END - EAST_ASIAN)

    def values(self, text: str) -> list[int]:
        """Return the digits of a text."""
        letters = text[:LENGTH].ljust(LENGTH)
        if self.first:
            return [max(0, min(self.base - 1, ord(letter) - self.first)) for letter in letters]
        # Marks count as spaces, and letters after `z` as the last digit.
        digits = map(LATIN.find, letters)
        return [
            digit if digit >= 0 else (self.base - 1) * (letter > "z")
            for digit, letter in zip(digits, letters, strict=True)
        ]

    def number(self, values: list[int]) -> int:
        number = 0
        for value in values:
            number = number * self.base + value
        return number

    def character(self, value: int) -> str:
        if not self.first:
            return LATIN[value]
        code = self.first + value
        return chr(code) if code < SURROGATES else LAST


def distance(text: str, other: str) -> int:
    """Return how far apart two texts are."""
    digits = Digits.of(text)
    return abs(digits.number(digits.values(text)) - digits.number(digits.values(other)))


def far_end(text: str, width: float, *, ascending: bool) -> str:
    """Return the end of a window that begins at a text.

    Args:
        text: where the window begins.
        width: of the window, as a distance.
        ascending: whether the end is after the text.
    """
    digits = Digits.of(text)
    values = digits.values(text)
    number = digits.number(values) + int(width if ascending else -width)
    if not 0 <= number < digits.base**LENGTH:
        return LAST * ascending
    end = [number // digits.base**place % digits.base for place in reversed(range(LENGTH))]
    kept = next((place for place, (old, new) in enumerate(zip(values, end, strict=True)) if old != new), None)
    if kept is None:
        return text + LAST * ascending
    # A digit is not always the character of the text: before the first other digit, the text stays as it is.
    return text[:kept] + "".join(map(digits.character, end[kept:]))


def folded(name: str) -> str:
    """Return the letters of a name that collation compares first: without accents, in lower case."""
    if name.isascii():
        return name.lower()
    letters = unicodedata.normalize("NFD", name.lower())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
