"""Terms for conditions: the texts and numbers of a consumer, each under the field's path.

A term is `path NUL value`. Texts are case-folded; for CONTAINS they have no accents either. Numbers and dates are
written so that the terms have the order of the values. Documents and queries use the same functions, so both always
agree.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

from infra import emails, fields
from infra.index.folding import fold, plain
from infra.wire import time

METADATA, EMAIL = "metadata", "email"
MAX_PATH_LENGTH = 340
"""Characters of an indexed path. Every path of a condition fits: five levels of metadata, each of 64 characters and a
dot."""
MAX_VALUE_LENGTH = 255
"""Characters of a condition's value."""
MAX_TERM_LENGTH = 3 * MAX_VALUE_LENGTH
"""Characters of an indexed text after case folding, which can triple the length."""
MAX_CONTENTS_BYTES = 2048
"""Bytes of a consumer's metadata for CONTAINS, because the index splits every character of it into trigrams: 15 KB
take the index 20 times as long as all further fields of a document. A text counts in UTF-8 after case folding, with the
12 bytes of its path's code."""
AFTER_NUMBERS = "\0003"
"""After a path: follows the terms of all numbers, and begins the terms of dates."""
DATE_LENGTHS = range(len("2024-11-01"), len("2024-11-01T10:00:00.000000000+00:00") + 1)
MAX_DIGITS, EXPONENT_OFFSET = 1000, 50_000
"""Significant digits of a number's term, and the offset that makes every exponent positive."""
DIGITS_COMPLEMENT = str.maketrans("0123456789", "9876543210")
CODE_LENGTH, CODE_BITS, FIRST_CODE_POINT = 4, 14, 0x4E00
"""Characters of a path's code, bits in each, and the lowest character."""

Folding = Callable[[str], str]

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Terms(msgspec.Struct):
    """The terms of a consumer, by field of the document."""

    texts: list[str]
    """For each field with a value: the path alone (for EXISTS), and the path with the text."""
    numbers: list[str]
    """Also the dates among the texts of metadata."""
    contents: list[str]
    """For CONTAINS: the code of the path with the text."""


def fold_value(path: str, text: str) -> str:
    """Return the text of a field as it is compared."""
    return emails.fold(text) if path == EMAIL else fold(text)


def contained_text(path: str, text: str, folding: Folding = plain) -> str:
    """Return the text of a field as CONTAINS compares it."""
    # A space at an end is part of the text.
    return folding(emails.fold(text) if path == EMAIL and text == text.strip() else text)


def text_term(path: str, text: str) -> str:
    return f"{path}\0{fold_value(path, text)}"


@lru_cache(maxsize=65_536)
def path_code(path: str) -> str:
    """Return a path as four characters. The probability that two paths have the same code is 2**-56.

    The index splits `contents` into trigrams. With the paths written out, most trigrams would be of paths.
    """
    digest = int.from_bytes(sha256(path.encode()).digest()[: CODE_LENGTH * CODE_BITS // 8])
    return "".join(
        chr(FIRST_CODE_POINT + (digest >> CODE_BITS * position) % 2**CODE_BITS) for position in range(CODE_LENGTH)
    )


def number_term(path: str, number: Decimal | int) -> str:
    """Return the term of a number. Terms of a path have the order of the numbers, of any size and precision.

    After the NUL comes the sign (0 negative, 1 zero, 2 positive), the exponent in five digits, and the significant
    digits. A negative number has the complement of each digit, and ends in `~`, greater than any digit.

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
    magnitude = f"{power + EXPONENT_OFFSET:05d}{digits[:MAX_DIGITS].rstrip('0')}"
    if is_negative:
        return f"{path}\0000{magnitude.translate(DIGITS_COMPLEMENT)}~"
    return f"{path}\0002{magnitude}"


def date_term(path: str, moment: datetime) -> str:
    """Return the term of a date or time. Terms of a path have the order of the times, after all numbers."""
    return f"{path}{AFTER_NUMBERS}{time(moment)}"


def date(text: str) -> datetime | None:
    """Return the time in a text as RFC 3339 has it, or midnight in UTC of a date; None for any other text."""
    try:
        return fields.timestamp(text)
    except ValueError:
        return None


def terms(values: Mapping[str, Any], metadata: str | None, contained: Folding = plain) -> Terms:
    """Return the terms of a consumer.

    Args:
        values: values of the fields, by name; arrays are indexed like arrays in metadata.
        metadata: JSON text.
        contained: folds texts for CONTAINS.
    """
    collected = Terms([], [], [])
    for path, value in values.items():
        if isinstance(value, str):  # saves the call of `_add`, 3 % of the time to make a document
            collected.texts.append(path)
            _add_text(collected, path, value, contained)
        else:
            _add(collected, path, value, contained)
    if metadata is not None:
        inner = Terms([], [], [])
        _add(inner, METADATA, _decode(metadata), contained)
        collected.texts += dict.fromkeys(inner.texts)
        collected.numbers += dict.fromkeys(inner.numbers)
        collected.contents += _shortest(inner.contents, MAX_CONTENTS_BYTES)
    return collected


def _shortest(texts: Iterable[str], limit: int) -> list[str]:
    """Return the shortest texts, without duplicates, up to a number of bytes. The last text may be cut."""
    shortest: list[str] = []
    for text in sorted(dict.fromkeys(texts), key=len):
        encoded = text.encode()
        if len(encoded) > limit:
            cut = encoded[:limit].decode(errors="ignore")
            return [*shortest, cut] if len(cut) > CODE_LENGTH else shortest
        shortest.append(text)
        limit -= len(encoded)
    return shortest


def _add(collected: Terms, path: str, value: Any, contained: Folding) -> None:
    """Add the terms of a value: the path alone, and the content. Every element of an array has the array's path."""
    if value is None or len(path) > MAX_PATH_LENGTH:
        return
    if path != METADATA:
        collected.texts.append(path)
    if isinstance(value, str):
        _add_text(collected, path, value, contained)
        if len(value) in DATE_LENGTHS and value[:4].isdecimal() and (moment := date(value)):
            collected.numbers.append(date_term(path, moment))
    elif isinstance(value, dict):
        for key, inner in value.items():
            _add(collected, f"{path}.{key}", inner, contained)
    elif isinstance(value, list):
        for inner in value:
            _add(collected, path, inner, contained)
    elif isinstance(value, bool):
        _add_text(collected, path, "true" if value else "false", contained)
    else:
        collected.numbers.append(number_term(path, value))


def _add_text(collected: Terms, path: str, text: str, contained: Folding) -> None:
    folded = fold_value(path, text)
    if len(folded) <= MAX_TERM_LENGTH:
        collected.texts.append(f"{path}\0{folded}")
    collected.contents.append(path_code(path) + (folded if folded.isascii() else contained_text(path, text, contained)))
