"""What conditions compare of a consumer: text and numbers, each under its field's path.

The index holds a term for each, `path NUL value`, in which case is folded, and numbers are written so that their
characters stand in the order of the numbers. Conditions are written by the same functions, so both always agree.
"""

import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

METADATA = "metadata"
LONGEST_PATH = 340
"""Characters. No condition can name a longer one: metadata's five levels, each of 64 and its dot, fit."""
LONGEST_VALUE = 255
"""Characters of a condition's value."""
LONGEST_TERM = 3 * LONGEST_VALUE
"""Characters of a value's text once folded, which can make three of one."""
CHUNK = 4096
"""Characters in which longer text is cut to be searched inside, overlapping by what a condition can name."""
DIGITS, EXPONENT = 1000, 50_000
"""Significant digits that are told apart, and what keeps a written exponent positive."""
COMPLEMENT = str.maketrans("0123456789", "9876543210")
CODE, CODE_BITS, CODE_FIRST = 4, 14, 0x4E00
"""Characters of a path's code, what each tells apart, and the first of them."""

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Terms(msgspec.Struct):
    """Of one consumer."""

    texts: list[str]
    """For each field that is not null its path, and its path with its text."""
    numbers: list[str]
    contents: list[str]
    """As `texts`, each path as its code, whole however long, to be searched inside."""


def fold(text: str) -> str:
    """Text without its case, by Unicode's canonical caseless matching."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def text_term(path: str, text: str) -> str:
    return f"{path}\0{fold(text)}"


@lru_cache(maxsize=65_536)
def path_code(path: str) -> str:
    """A path in four characters: two paths have the same with a probability of 2**-56.

    The index analyses `contents` in steps of three characters: whole paths would be most of that.
    """
    digest = int.from_bytes(sha256(path.encode()).digest()[: CODE * CODE_BITS // 8])
    return "".join(chr(CODE_FIRST + (digest >> CODE_BITS * place) % 2**CODE_BITS) for place in range(CODE))


def number_term(path: str, number: Decimal | int) -> str:
    """Terms of one path are ordered as their numbers are, whatever their size and precision.

    >>> number_term("n", Decimal("-1.5")) < number_term("n", -1) < number_term("n", Decimal("0.2"))
    True
    """
    if not number:
        return f"{path}\0001"
    if isinstance(number, int):
        digits, power, is_negative = (written := str(abs(number))), len(written) - 1, number < 0
    else:
        sign, parts, _ = number.as_tuple()
        digits, power, is_negative = "".join(map(str, parts)), number.adjusted(), bool(sign)
    term = f"{power + EXPONENT:05d}{digits[:DIGITS].rstrip('0')}"
    return f"{path}\0000{term.translate(COMPLEMENT)}~" if is_negative else f"{path}\0002{term}"


def terms(texts: Mapping[str, str | None], metadata: str | None) -> Terms:
    """The terms of a consumer.

    Args:
        texts: its text by field.
        metadata: JSON text.
    """
    found = Terms([], [], [])
    for path, text in texts.items():
        if text is not None:
            found.texts.append(path)
            _add_text(found, path, text)
    if metadata is not None:
        _add(found, METADATA, _decode(metadata))
        found.texts[:] = dict.fromkeys(found.texts)
    return found


def _add(found: Terms, path: str, value: Any) -> None:
    """What is inside, each with its path: of arrays every element, of objects and arrays also that they are there."""
    if value is None or len(path) > LONGEST_PATH:
        return
    if path != METADATA:
        found.texts.append(path)
    if isinstance(value, str):
        _add_text(found, path, value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _add(found, f"{path}.{key}", inner)
    elif isinstance(value, list):
        for inner in value:
            _add(found, path, inner)
    elif isinstance(value, bool):
        _add_text(found, path, "true" if value else "false")
    else:
        found.numbers.append(number_term(path, value))


def _add_text(found: Terms, path: str, text: str) -> None:
    folded = fold(text)
    if len(folded) <= LONGEST_TERM:
        found.texts.append(f"{path}\0{folded}")
        found.contents.append(path_code(path) + folded)
        return
    begins = range(0, len(folded) - LONGEST_TERM, CHUNK - LONGEST_TERM)
    found.contents.extend(path_code(path) + folded[begin : begin + CHUNK] for begin in begins)
